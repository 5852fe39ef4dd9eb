//! What payloads did to a publisher.

/// Counts of what applying payloads did, with the fields and meanings of `Applied` in
/// `kvsync_indexer/core/protocol.py`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Applied {
    pub events: u64,
    pub stored: u64,
    pub removed: u64,
    pub cleared: u64,
    pub orphans: u64,
    pub attached: u64,
    pub unknown_removed: u64,
    pub unknown_events: u64,
    pub refused: u64,
    pub payloads: u64,
}
