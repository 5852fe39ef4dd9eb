//! The limits of a single payload.

use crate::reader::Caps;

/// The limits of a payload; the fields are those of `kvsync_events.Limits`.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct WireLimits {
    pub max_payload_bytes: usize,
    pub max_events: usize,
    pub max_hashes: usize,
    pub max_tokens: usize,
    pub max_hash_bytes: usize,
    pub max_text_bytes: usize,
    pub max_block_size: usize,
    pub max_key_parts: usize,
}

impl Default for WireLimits {
    fn default() -> Self {
        WireLimits {
            max_payload_bytes: 64 << 20,
            max_events: 65_536,
            max_hashes: 262_144,
            max_tokens: 2 << 20,
            max_hash_bytes: 64,
            max_text_bytes: 65_536,
            max_block_size: 1 << 20,
            max_key_parts: 1024,
        }
    }
}

impl WireLimits {
    /// The sizes at which a reader of a payload of `size` bytes stops, as Python's decoder tells msgpack.
    pub(crate) fn caps(&self, size: usize) -> Caps {
        Caps {
            array: size.min(self.max_tokens.max(self.max_hashes).max(self.max_events)),
            map: size.min(4096),
            raw: size.min(self.max_text_bytes),
        }
    }
}
