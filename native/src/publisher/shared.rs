//! What all publishers share, and the limits they are held to.

use crate::groups::Media;
use crate::nodes::Nodes;
use crate::wire::WireLimits;

pub const MAX_COPIES: u16 = u16::MAX;
pub const MAX_SLOTS: usize = 64;
pub const MAX_BLOCK_SIZES: usize = 8;
pub const MAX_MEDIUM_CHARS: usize = 64;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_publishers: usize,
    pub max_blocks: usize,
    pub max_orphans: usize,
    pub max_query_tokens: usize,
    pub wire: WireLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_publishers: 4096,
            max_blocks: 8_000_000,
            max_orphans: 262_144,
            max_query_tokens: 4 << 20,
            wire: WireLimits::default(),
        }
    }
}

/// What one payload did, in the order of Python's `Applied`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

/// What all publishers share.
pub struct Shared {
    pub nodes: Nodes,
    pub columns: Columns,
    pub media: Media,
    pub limits: Limits,
    pub seed: u64,
    pub(super) texts: Vec<u64>,
    pub(super) canonical: Vec<u8>,
}

impl Shared {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Shared {
            nodes: Nodes::new(seed),
            columns: Columns::default(),
            media: Media::default(),
            limits,
            seed,
            texts: Vec::new(),
            canonical: Vec::new(),
        }
    }
}

/// Columns of the holder sets: (publisher, slot).
#[derive(Default)]
pub struct Columns {
    owners: Vec<(u32, u8)>,
    pub(super) free: Vec<u32>,
}

impl Columns {
    pub(super) fn take(&mut self, publisher: u32, slot: u8) -> u32 {
        match self.free.pop() {
            Some(column) => {
                self.owners[column as usize] = (publisher, slot);
                column
            }
            None => {
                self.owners.push((publisher, slot));
                (self.owners.len() - 1) as u32
            }
        }
    }

    #[inline(always)]
    pub fn owner(&self, column: u32) -> (u32, u8) {
        self.owners[column as usize]
    }
}
