//! Copies of blocks in slots: counted, released and put back, and which node shows them to matches.

use super::progress::Clearing;
use super::{Applied, Orphan, Publisher, AHEAD};
use crate::hash::digest_term;
use crate::ids::{BlockId, NodeId, PrefixKey, SizeNumber, SlotId};
use crate::limits::MAX_COPIES;
use crate::segments::Place;
use crate::shared::Shared;
use crate::table::Entry;
use crate::wire::{Batch, Part, WireHash};

/// Where a block is stored, and what it is.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub slot: SlotId,
    pub size: SizeNumber,
    pub node: NodeId,
}

impl Target {
    #[inline(always)]
    fn entry(self, wire: &WireHash) -> Entry {
        let Target { slot, size, node } = self;
        Entry { id: wire.hash.in_size(size), node, copies: 1, slot, size }
    }
}

impl Publisher {
    /// Count a hash that is stored again in a slot; true if that added a copy.
    #[inline]
    pub(super) fn add_copy(&mut self, place: Option<Place>, adds_copy: bool, applied: &mut Applied) -> bool {
        let Some(place) = place else { return false };
        applied.stored += 1;
        let entry = self.table.at(place);
        let added = adds_copy && entry.copies < MAX_COPIES;
        entry.copies += added as u16;
        added
    }

    /// Count a hash that is not in the slot yet; `known`: the block is in another slot.
    pub(super) fn insert(
        &mut self,
        shared: &mut Shared,
        wire: &WireHash,
        data: &[u8],
        target: Target,
        known: bool,
        applied: &mut Applied,
    ) {
        if known {
            applied.stored += 1;
            self.put(shared, target.entry(wire));
        } else {
            self.insert_new(shared, wire, data, target, applied);
        }
    }

    /// Count a hash that is in no slot yet.
    #[inline(always)]
    pub(super) fn insert_new(
        &mut self,
        shared: &mut Shared,
        wire: &WireHash,
        data: &[u8],
        target: Target,
        applied: &mut Applied,
    ) {
        if let Some(span) = wire.raw {
            self.raw_hashes.insert(wire.hash.in_size(target.size), span.of(data).into());
        }
        applied.stored += 1;
        self.put(shared, target.entry(wire));
    }

    /// Add an entry to the table, its slot's digest and its node.
    #[inline(always)]
    fn put(&mut self, shared: &mut Shared, entry: Entry) {
        self.table.insert(entry);
        let held = &mut self.slots[entry.slot.index()];
        held.digest = held.digest.wrapping_add(digest_term(entry.id.hash(entry.size)));
        held.count += 1;
        if held.log.is_kept() {
            held.log.add(entry.id, entry.slot, held.count, &self.table);
        }
        if entry.node != NodeId::ORPHAN {
            self.show(shared, entry.node, entry.slot);
        }
    }

    /// Apply a removed event further; `slot` is None if its medium and group were never used. True if all is done.
    pub(super) fn remove(
        &mut self,
        shared: &mut Shared,
        batch: &Batch,
        part: Part,
        slot: Option<SlotId>,
        applied: &mut Applied,
    ) -> bool {
        let hashes = part.of(&batch.hashes);
        let Some(slot) = slot else {
            applied.unknown_removed += hashes.len() as u64;
            return true;
        };
        let begin = self.cursor.at;
        let end = self.slice_end(begin, hashes.len());
        let takes_all = self.last_copy_only && self.slots[slot.index()].is_device;
        for (at, &hash) in hashes.iter().enumerate().take(end).skip(begin) {
            if let Some(&later) = batch.hashes.get(part.start as usize + at + AHEAD) {
                self.table.prefetch(later.in_size(SizeNumber(0)));
            }
            let mut id = hash.in_size(SizeNumber(0));
            if self.has_sizes() {
                id = self.held(hash, slot).unwrap_or(id);
            }
            let Some(place) = self.table.find(id, slot).0 else {
                applied.unknown_removed += 1;
                continue;
            };
            applied.removed += 1;
            if !self.tentative.is_empty() {
                self.tentative.remove(&(id, slot));
            }
            if takes_all {
                self.drop_entry(shared, id, place, slot, true);
            } else {
                self.release(shared, id, place, slot);
            }
        }
        self.cursor.at = end;
        end == hashes.len()
    }

    /// Where the present slice ends in an event of `len` hashes, `at` of which are done.
    #[inline(always)]
    pub(super) fn slice_end(&mut self, at: usize, len: usize) -> usize {
        let end = len.min(at + self.left.max(1) as usize);
        self.left -= (end - at) as i64;
        end
    }

    /// Remove one copy.
    #[inline]
    pub(super) fn release(&mut self, shared: &mut Shared, id: BlockId, place: Place, slot: SlotId) {
        let entry = self.table.at(place);
        if entry.copies > 1 {
            entry.copies -= 1;
        } else {
            self.drop_entry(shared, id, place, slot, true);
        }
    }

    /// Take all copies of a block out of a slot; `remembers`: keep its content if it is in no other slot.
    pub(super) fn drop_entry(&mut self, shared: &mut Shared, id: BlockId, place: Place, slot: SlotId, remembers: bool) {
        let entry = *self.table.at(place);
        self.table.remove(place);
        let held = &mut self.slots[slot.index()];
        held.digest = held.digest.wrapping_sub(digest_term(id.hash(entry.size)));
        held.count -= 1;
        let is_last = self.slots.len() == 1 || self.table.find_any(id).is_none();
        if entry.node != NodeId::ORPHAN {
            if is_last && remembers {
                let node = shared.nodes.get(entry.node);
                self.remembered.add(shared.limits.max_remembered, id, node.key, node.parent_tag);
            }
            self.hide(shared, entry.node, slot);
        }
        if !is_last {
            return;
        }
        if !self.raw_hashes.is_empty() {
            self.raw_hashes.remove(&id);
        }
        if entry.node == NodeId::ORPHAN {
            self.remove_orphan(id);
        }
    }

    /// Begin to drop the blocks of one medium, or of all of them. True if the event is done but for the blocks that
    /// `finish_begun` drops; a medium may have slots in several groups, and they are cleared one after the other.
    pub(super) fn clear(&mut self, shared: &mut Shared, medium: Option<&str>, applied: &mut Applied) -> bool {
        self.tentative.clear();
        let Some(name) = medium else {
            let dropped = self.begin_forget() as u64;
            self.work += dropped;
            applied.cleared += dropped;
            return true;
        };
        for at in 0..self.slots.len() {
            let (slot, held) = (SlotId::at(at), &mut self.slots[at]);
            if held.count == 0 || !shared.media.is(Some(name), held.medium) {
                continue;
            }
            applied.cleared += held.count;
            let (ids, read) = held.log.take(slot, &self.table);
            self.work += read as u64;
            self.clearing = Some(Clearing::Slot(slot, ids));
            return false;
        }
        true
    }

    /// Record that one more hash of this content is in the slot.
    #[inline(always)]
    pub(super) fn show(&mut self, shared: &mut Shared, node: NodeId, slot: SlotId) {
        let column = self.slots[slot.index()].column;
        if shared.nodes.shows(node, column) {
            *self.repeats.entry((node, slot)).or_insert(0) += 1;
        } else {
            shared.nodes.show(node, column);
        }
    }

    /// Record that one hash of this content less is in the slot; the content stays until the last one goes.
    #[inline(always)]
    pub(super) fn hide(&mut self, shared: &mut Shared, node: NodeId, slot: SlotId) {
        if !self.repeats.is_empty() {
            if let Some(more) = self.repeats.get_mut(&(node, slot)) {
                *more -= 1;
                if *more == 0 {
                    self.repeats.remove(&(node, slot));
                }
                return;
            }
        }
        shared.nodes.hide(node, self.slots[slot.index()].column);
    }

    /// Put back a block of known content as a snapshot describes it, and return its node. `held` gives its copies by
    /// slot.
    pub fn restore_attached(
        &mut self,
        shared: &mut Shared,
        (id, size): (BlockId, SizeNumber),
        (key, parent_tag): (PrefixKey, u32),
        held: &[(SlotId, u16)],
        hint: NodeId,
    ) -> NodeId {
        let node = shared.nodes.intern(key, parent_tag, hint);
        for &(slot, copies) in held {
            self.put(shared, Entry { id, slot, node, copies, size });
        }
        node
    }

    /// Put back an orphan as a snapshot describes it.
    pub fn restore_orphan(&mut self, shared: &mut Shared, id: BlockId, orphan: Orphan, held: &[(SlotId, u16)]) {
        let size = orphan.size;
        self.wait_for_parent(id, orphan);
        for &(slot, copies) in held {
            self.put(shared, Entry { id, slot, node: NodeId::ORPHAN, copies, size });
        }
    }
}
