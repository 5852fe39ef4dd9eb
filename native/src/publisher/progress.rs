//! How far the application of a payload is, so that others can have the core in between.
//!
//! A payload of a few megabytes, or one small event (a clear, the parent that thousands of blocks wait for), may change
//! hundreds of thousands of blocks. The work is done in slices. Queries that are answered between two slices see the
//! publisher as it was at some moment within the engine's step.

use std::collections::{hash_map, HashMap, HashSet};

use super::{Applied, Publisher};
use crate::hash::mix;
use crate::ids::{BlockId, NodeId, PrefixKey, SizeNumber, SlotId};
use crate::shared::Shared;
use crate::table::Table;
use crate::wire::WireHash;

/// The next event of the batch, and how much of it is done.
#[derive(Default)]
pub(super) struct Cursor {
    pub event: usize,
    /// Hashes of the event that are done.
    pub at: usize,
    pub stored: Option<StoredPoint>,
    /// Sparse events that were placed, and the blocks that were read for them.
    pub placed: usize,
    pub placed_blocks: usize,
}

impl Cursor {
    pub fn next_event(&mut self) {
        self.event += 1;
        self.at = 0;
        self.stored = None;
    }
}

/// What a stored event turned out to be when it was begun, and where it stands.
#[derive(Clone, Copy)]
pub(super) enum StoredPoint {
    /// An event that does not say for certain what its hashes are.
    Hashes { slot: SlotId, number: SizeNumber, adds_copy: bool },
    /// A chain of blocks.
    Chain(ChainPoint),
}

/// The block before the next one of a chain.
#[derive(Clone, Copy)]
pub(super) struct ChainPoint {
    pub slot: SlotId,
    pub size: SizeNumber,
    pub parent: Option<WireHash>,
    pub parent_key: Option<PrefixKey>,
    pub parent_tag: u32,
    /// Where the node of the next block probably is.
    pub hint: NodeId,
}

/// Maps with memory of their own in every entry.
#[derive(Default)]
pub(super) struct Leftovers {
    raw_hashes: hash_map::IntoIter<BlockId, Box<[u8]>>,
    waiting: hash_map::IntoIter<BlockId, HashSet<BlockId>>,
}

/// Blocks that are being dropped.
pub(super) enum Clearing {
    /// The publisher's former table, from this part on, and what else it held.
    Table(Table, usize, Leftovers),
    /// What is left after the table, which takes long to free.
    Rest(Leftovers),
    /// These blocks of a slot.
    Slot(SlotId, Vec<BlockId>),
}

impl Publisher {
    /// Finish what the last event has begun; false if there is more to do than the slice has room for.
    #[inline(always)]
    pub(super) fn finish_begun(&mut self, shared: &mut Shared, applied: &mut Applied) -> bool {
        if !self.attaching.is_empty() {
            self.attach_more(shared, applied);
        }
        if self.clearing.is_some() {
            self.clear_more(shared);
        }
        self.attaching.is_empty() && self.clearing.is_none()
    }

    /// Begin to drop all blocks; slots and groups stay. Returns how many there are.
    pub fn begin_forget(&mut self) -> usize {
        let dropped = self.table.len();
        let table = self.table.take();
        let raw_hashes = std::mem::take(&mut self.raw_hashes).into_iter();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        self.clearing = Some(Clearing::Table(table, 0, Leftovers { raw_hashes, waiting }));
        self.attaching.clear();
        self.orphans = HashMap::new();
        self.tentative.clear();
        self.sparse.clear();
        for slot in &mut self.slots {
            slot.digest = 0;
            slot.count = 0;
            slot.log.clear();
        }
        dropped
    }

    /// Drop further blocks that are being dropped; true if all are gone.
    pub fn forget_more(&mut self, shared: &mut Shared, left: i64) -> bool {
        self.left = left;
        self.clear_more(shared);
        self.clearing.is_none()
    }

    pub(super) fn clear_more(&mut self, shared: &mut Shared) {
        match self.clearing.take() {
            Some(Clearing::Table(table, mut part, leftovers)) => {
                while part < table.parts() && self.left > 0 {
                    for entry in table.iter_part(part..part + 1) {
                        self.left -= 1;
                        if entry.node != NodeId::ORPHAN {
                            self.hide(shared, entry.node, entry.slot);
                        }
                    }
                    part += 1;
                }
                if part < table.parts() {
                    self.clearing = Some(Clearing::Table(table, part, leftovers));
                } else {
                    self.repeats = HashMap::new();
                    self.clearing = Some(Clearing::Rest(leftovers));
                    self.clear_more(shared);
                }
            }
            Some(Clearing::Rest(mut leftovers)) => {
                let most = self.left.max(0) as usize;
                let freed = leftovers.raw_hashes.by_ref().take(most).count();
                let freed = freed + leftovers.waiting.by_ref().take(most - freed).count();
                self.left -= freed as i64;
                if leftovers.raw_hashes.len() + leftovers.waiting.len() > 0 {
                    self.clearing = Some(Clearing::Rest(leftovers));
                }
            }
            Some(Clearing::Slot(slot, mut ids)) => {
                while self.left > 0 {
                    let Some(id) = ids.pop() else { return };
                    self.left -= 1;
                    if let (Some(place), _) = self.table.find(id, slot) {
                        self.drop_entry(shared, id, place, slot, false);
                    }
                }
                self.clearing = Some(Clearing::Slot(slot, ids));
            }
            None => {}
        }
    }

    /// Attach every block that waited for this one, and every block that waited for one of those; what the slice has no
    /// room for is left to `finish_begun`.
    pub(super) fn attach_waiting(&mut self, shared: &mut Shared, id: BlockId, key: PrefixKey, applied: &mut Applied) {
        if let Some(children) = self.waiting.remove(&id) {
            self.attaching.push((children.into_iter().collect(), key));
            self.attach_more(shared, applied);
        }
    }

    #[cold]
    fn attach_more(&mut self, shared: &mut Shared, applied: &mut Applied) {
        while self.left > 0 {
            let Some((children, parent_key)) = self.attaching.last_mut() else { return };
            let parent_key = *parent_key;
            let Some(child) = children.pop() else {
                self.attaching.pop();
                continue;
            };
            self.left -= 1;
            if let Some(orphan) = self.orphans.remove(&child) {
                let key = mix(parent_key, orphan.local_hash);
                self.attach(shared, child, key, parent_key.tag(), applied);
                if let Some(children) = self.waiting.remove(&child) {
                    self.attaching.push((children.into_iter().collect(), key));
                }
            }
        }
    }
}
