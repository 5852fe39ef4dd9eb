//! Snapshots, equal byte for byte to those of `kvsync_indexer/core/snapshot.py`, where the layout is described.

mod read;
mod write;

#[cfg(feature = "python")]
pub(crate) use write::join;

const MAGIC: &[u8; 8] = b"KVSYNCIX";
const VERSION: u32 = 2;
/// Bytes of the header.
const HEAD: usize = 32;
const NO_WINDOW: u64 = u64::MAX;

/// What is known of a hash's content: the low two bits of its form.
const ATTACHED: u8 = 0;
const WAITS_FOR_PARENT: u8 = 1;
const WAITS_FOR_TOKENS: u8 = 2;
const CONTENT: u8 = 3;
/// The hash came as bytes.
const RAW: u8 = 4;
