//! The hard limits of a core: `CoreLimits` and the constants of `kvsync_indexer/core/protocol.py`, where it is said
//! what happens at each of them.

use crate::wire::WireLimits;

/// Copies of one block in one slot are counted up to here.
pub const MAX_COPIES: u16 = u16::MAX;
/// Slots per publisher, because a residency mask has 64 bits.
pub const MAX_SLOTS: usize = 64;
/// Block sizes per cache group of a publisher.
pub const MAX_BLOCK_SIZES: usize = 8;
/// Block sizes that all groups of a publisher may use together.
pub const MAX_CHAIN_SIZES: usize = 16;
/// Cache groups with tokens that a publisher may have in a match.
pub const MAX_MATCH_GROUPS: usize = 32;
/// Block sizes that the groups of a publisher may have in a match.
pub const MAX_MATCH_SIZES: usize = 8;
/// Characters in the name of a medium.
pub const MAX_MEDIUM_CHARS: usize = 64;

/// Limits that the caller sets; each is a count.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Publishers known at a time.
    pub max_publishers: usize,
    /// Resident blocks per publisher, counted per slot.
    pub max_blocks: usize,
    /// Blocks per publisher whose content is not known yet.
    pub max_orphans: usize,
    /// Removed blocks per publisher whose content is kept.
    pub max_remembered: usize,
    /// Tokens per query.
    pub max_query_tokens: usize,
    /// Limits of a single payload.
    pub wire: WireLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_publishers: 4096,
            max_blocks: 8_000_000,
            max_orphans: 262_144,
            max_remembered: 32_768,
            max_query_tokens: 4 << 20,
            wire: WireLimits::default(),
        }
    }
}
