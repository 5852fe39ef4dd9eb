//! Copies of blocks in slots: counted, released and put back, and which node shows them to matches.

use super::{Applied, Orphan, Publisher, AHEAD};
use crate::hash::digest_term;
use crate::ids::{EngineHash, NodeId, PrefixKey, SlotId};
use crate::limits::MAX_COPIES;
use crate::segments::Place;
use crate::shared::Shared;
use crate::table::Entry;
use crate::wire::{Batch, Part, WireHash};

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

    /// Count a hash that is not in the slot yet; `known`: it is in another slot.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn insert(
        &mut self,
        shared: &mut Shared,
        wire: &WireHash,
        data: &[u8],
        slot: SlotId,
        known: bool,
        node: NodeId,
        applied: &mut Applied,
    ) {
        if known {
            applied.stored += 1;
            self.put(shared, Entry { hash: wire.hash, slot, node, copies: 1 });
        } else {
            self.insert_new(shared, wire, data, slot, node, applied);
        }
    }

    /// Count a hash that is in no slot yet.
    #[inline(always)]
    pub(super) fn insert_new(
        &mut self,
        shared: &mut Shared,
        wire: &WireHash,
        data: &[u8],
        slot: SlotId,
        node: NodeId,
        applied: &mut Applied,
    ) {
        if let Some(span) = wire.raw {
            self.raw_hashes.insert(wire.hash, span.of(data).into());
        }
        applied.stored += 1;
        self.put(shared, Entry { hash: wire.hash, slot, node, copies: 1 });
    }

    /// Add an entry to the table, its slot's digest and its node.
    #[inline(always)]
    fn put(&mut self, shared: &mut Shared, entry: Entry) {
        self.table.insert(entry);
        let held = &mut self.slots[entry.slot.index()];
        held.digest = held.digest.wrapping_add(digest_term(entry.hash));
        held.count += 1;
        if entry.node != NodeId::ORPHAN {
            self.show(shared, entry.node, entry.slot);
        }
    }

    /// Apply a removed event; `slot` is None if its medium and group were never used.
    pub(super) fn remove(
        &mut self,
        shared: &mut Shared,
        batch: &Batch,
        part: Part,
        slot: Option<SlotId>,
        applied: &mut Applied,
    ) {
        let hashes = part.of(&batch.hashes);
        let Some(slot) = slot else {
            applied.unknown_removed += hashes.len() as u64;
            return;
        };
        for (at, &hash) in hashes.iter().enumerate() {
            if let Some(&later) = batch.hashes.get(part.start as usize + at + AHEAD) {
                self.table.prefetch(later);
            }
            let Some(place) = self.table.find(hash, slot).0 else {
                applied.unknown_removed += 1;
                continue;
            };
            applied.removed += 1;
            if !self.tentative.is_empty() {
                self.tentative.remove(&(hash, slot));
            }
            self.release(shared, hash, place, slot);
        }
    }

    /// Remove one copy.
    #[inline]
    pub(super) fn release(&mut self, shared: &mut Shared, hash: EngineHash, place: Place, slot: SlotId) {
        let entry = self.table.at(place);
        if entry.copies > 1 {
            entry.copies -= 1;
        } else {
            self.drop_entry(shared, hash, place, slot);
        }
    }

    fn drop_entry(&mut self, shared: &mut Shared, hash: EngineHash, place: Place, slot: SlotId) {
        let node = self.table.at(place).node;
        self.table.remove(place);
        let held = &mut self.slots[slot.index()];
        held.digest = held.digest.wrapping_sub(digest_term(hash));
        held.count -= 1;
        if node != NodeId::ORPHAN {
            self.hide(shared, node, slot);
        }
        if self.slots.len() > 1 && self.table.find_any(hash).is_some() {
            return;
        }
        if !self.raw_hashes.is_empty() {
            self.raw_hashes.remove(&hash);
        }
        if node == NodeId::ORPHAN {
            self.remove_orphan(hash);
        }
    }

    /// Drop the blocks of one medium, or of all of them; returns how many were dropped.
    pub(super) fn clear(&mut self, shared: &mut Shared, medium: Option<&str>) -> usize {
        let before = self.table.len();
        self.tentative.clear();
        let Some(name) = medium else {
            self.drop_blocks(shared);
            return before;
        };
        let cleared: Vec<bool> = self.slots.iter().map(|slot| shared.media.is(Some(name), slot.medium)).collect();
        let dropped: Vec<(EngineHash, SlotId)> = self
            .table
            .iter()
            .filter(|entry| cleared[entry.slot.index()])
            .map(|entry| (entry.hash, entry.slot))
            .collect();
        for (hash, slot) in dropped {
            if let (Some(place), _) = self.table.find(hash, slot) {
                self.drop_entry(shared, hash, place, slot);
            }
        }
        before - self.table.len()
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
        hash: EngineHash,
        (key, parent_tag): (PrefixKey, u32),
        held: &[(SlotId, u16)],
        hint: NodeId,
    ) -> NodeId {
        let node = shared.nodes.intern(key, parent_tag, hint);
        for &(slot, copies) in held {
            self.put(shared, Entry { hash, slot, node, copies });
        }
        node
    }

    /// Put back an orphan as a snapshot describes it.
    pub fn restore_orphan(&mut self, shared: &mut Shared, hash: EngineHash, orphan: Orphan, held: &[(SlotId, u16)]) {
        self.wait_for_parent(hash, orphan);
        for &(slot, copies) in held {
            self.put(shared, Entry { hash, slot, node: NodeId::ORPHAN, copies });
        }
    }
}
