//! Which blocks a slot holds, so that a clear of one medium costs no more than the blocks that it drops.

use crate::ids::{BlockId, SlotId};
use crate::table::Table;

/// The blocks that were stored in a slot, in order; some may be gone, and some may be listed twice.
///
/// A slot that holds most of the publisher's blocks keeps no list: to look at the whole table is as fast, and the usual
/// publisher has one slot. A list is begun again when the slot is cleared.
pub(crate) struct SlotLog(Option<Vec<BlockId>>);

/// The length from which on a list may be given up or tidied.
const LONG: usize = 1024;

impl SlotLog {
    /// The list of a new slot; the only slot of a publisher keeps none.
    pub fn new(is_only: bool) -> Self {
        SlotLog((!is_only).then(Vec::new))
    }

    /// Whether blocks are listed.
    #[inline(always)]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// List a block. `count` is the number of blocks in the slot.
    #[inline(never)]
    pub fn add(&mut self, id: BlockId, slot: SlotId, count: u64, table: &Table) {
        let Some(ids) = &mut self.0 else { return };
        ids.push(id);
        if ids.len() < LONG || (ids.len() as u64) < 2 * count {
            return;
        }
        if 2 * count > table.len() as u64 {
            self.0 = None;
            return;
        }
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|&id| table.find(id, slot).0.is_some());
    }

    /// The blocks of a slot that is about to be cleared, and how many entries were read to find them.
    pub fn take(&mut self, slot: SlotId, table: &Table) -> (Vec<BlockId>, usize) {
        match self.0.replace(Vec::new()) {
            Some(ids) => {
                let read = ids.len();
                (ids, read)
            }
            None => {
                let held = table.iter().filter(|entry| entry.slot == slot).map(|entry| entry.id);
                (held.collect(), table.len())
            }
        }
    }

    /// The memory that the list takes.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |ids| ids.capacity() * std::mem::size_of::<BlockId>())
    }

    /// Forget what was listed, because the slot is empty.
    pub fn clear(&mut self) {
        if let Some(ids) = &mut self.0 {
            *ids = Vec::new();
        }
    }
}
