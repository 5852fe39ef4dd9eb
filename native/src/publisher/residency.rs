//! Rows: copies of a block in a slot, counted, taken away and put back, and who holds a node because of them.

use super::chain::AHEAD;
use super::orphans::Orphan;
use super::{Applied, Publisher, Shared, MAX_COPIES};
use crate::hash::digest_term;
use crate::segments::Place;
use crate::table::{Entry, ORPHAN};
use crate::wire::{Batch, Part, WireHash};

impl Publisher {
    /// Count a row stored again; true if it has a copy more.
    #[inline]
    pub(super) fn gain(&mut self, place: Option<Place>, gains: bool, tally: &mut Applied) -> bool {
        let Some(place) = place else { return false };
        tally.stored += 1;
        let entry = self.table.at(place);
        let more = gains && entry.copies < MAX_COPIES;
        entry.copies += more as u16;
        more
    }

    /// Count a row that is not there yet, of a hash that may be there in other slots (`seen`: its node before the event).
    #[allow(clippy::too_many_arguments)]
    pub(super) fn insert_row(
        &mut self,
        shared: &mut Shared,
        hash: &WireHash,
        data: &[u8],
        slot: u8,
        seen: Option<u32>,
        node: u32,
        tally: &mut Applied,
    ) {
        if seen.is_none() {
            self.insert_new(shared, hash, data, slot, node, tally);
        } else {
            tally.stored += 1;
            self.put(shared, Entry { hash: hash.key, slot, node, copies: 1 });
        }
    }

    /// Count a row of a hash that is in no slot.
    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    pub(super) fn insert_new(
        &mut self,
        shared: &mut Shared,
        hash: &WireHash,
        data: &[u8],
        slot: u8,
        node: u32,
        tally: &mut Applied,
    ) {
        if let Some(span) = hash.spelled {
            self.spelled.insert(hash.key, span.of(data).into());
        }
        tally.stored += 1;
        self.put(shared, Entry { hash: hash.key, slot, node, copies: 1 });
    }

    /// Add a row that is not there.
    #[inline(always)]
    fn put(&mut self, shared: &mut Shared, entry: Entry) {
        self.table.insert(entry);
        let held = &mut self.slots[entry.slot as usize];
        held.digest = held.digest.wrapping_add(digest_term(entry.hash));
        held.count += 1;
        if entry.node != ORPHAN {
            self.show(shared, entry.node, entry.slot);
        }
    }

    pub(super) fn remove(
        &mut self,
        shared: &mut Shared,
        batch: &Batch,
        part: Part,
        slot: Option<u8>,
        tally: &mut Applied,
    ) {
        let hashes = part.of(&batch.hashes);
        let Some(slot) = slot else {
            tally.unknown_removed += hashes.len() as u64;
            return;
        };
        for (at, &hash) in hashes.iter().enumerate() {
            if let Some(&later) = batch.hashes.get(part.start as usize + at + AHEAD) {
                self.table.prefetch(later);
            }
            let Some(place) = self.table.find(hash, slot).0 else {
                tally.unknown_removed += 1;
                continue;
            };
            tally.removed += 1;
            if !self.tentative.is_empty() {
                self.tentative.remove(&(hash, slot));
            }
            self.release(shared, hash, place, slot);
        }
    }

    #[inline]
    pub(super) fn release(&mut self, shared: &mut Shared, hash: u64, place: Place, slot: u8) {
        let entry = self.table.at(place);
        if entry.copies > 1 {
            entry.copies -= 1;
        } else {
            self.drop_entry(shared, hash, place, slot);
        }
    }

    fn drop_entry(&mut self, shared: &mut Shared, hash: u64, place: Place, slot: u8) {
        let node = self.table.at(place).node;
        self.table.remove(place);
        let held = &mut self.slots[slot as usize];
        held.digest = held.digest.wrapping_sub(digest_term(hash));
        held.count -= 1;
        if node != ORPHAN {
            self.hide(shared, node, slot);
        }
        if self.slots.len() > 1 && self.table.find_any(hash).is_some() {
            return;
        }
        if !self.spelled.is_empty() {
            self.spelled.remove(&hash);
        }
        if node == ORPHAN {
            let orphan = self.orphans.remove(&hash);
            if let Some(above) = orphan.and_then(|orphan| orphan.parent) {
                self.unwait(hash, above.key());
            }
        }
    }

    pub(super) fn clear(&mut self, shared: &mut Shared, medium: Option<&str>) -> usize {
        let before = self.table.len();
        self.tentative.clear();
        let Some(name) = medium else {
            self.empty(shared);
            return before;
        };
        let slots: Vec<bool> = self.slots.iter().map(|slot| shared.media.is(Some(name), slot.medium)).collect();
        let doomed: Vec<(u64, u8)> = self
            .table
            .iter()
            .filter(|entry| slots[entry.slot as usize])
            .map(|entry| (entry.hash, entry.slot))
            .collect();
        for (hash, slot) in doomed {
            if let (Some(place), _) = self.table.find(hash, slot) {
                self.drop_entry(shared, hash, place, slot);
            }
        }
        before - self.table.len()
    }

    // Residency by own key

    #[inline(always)]
    pub(super) fn show(&mut self, shared: &mut Shared, node: u32, slot: u8) {
        let column = self.slots[slot as usize].column;
        if shared.nodes.shows(node, column) {
            *self.repeats.entry((node, slot)).or_insert(0) += 1;
        } else {
            shared.nodes.show(node, column);
        }
    }

    #[inline(always)]
    pub(super) fn hide(&mut self, shared: &mut Shared, node: u32, slot: u8) {
        if !self.repeats.is_empty() {
            if let Some(more) = self.repeats.get_mut(&(node, slot)) {
                *more -= 1;
                if *more == 0 {
                    self.repeats.remove(&(node, slot));
                }
                return;
            }
        }
        shared.nodes.hide(node, self.slots[slot as usize].column);
    }

    /// Put back rows of an attached block that is not there yet.
    pub fn restore_attached(
        &mut self,
        shared: &mut Shared,
        hash: u64,
        key: u64,
        tag: u32,
        held: &[(u8, u16)],
        near: u32,
    ) -> u32 {
        let node = shared.nodes.intern(key, tag, near);
        for &(slot, copies) in held {
            self.put(shared, Entry { hash, slot, node, copies });
        }
        node
    }

    /// Put back rows of an orphan that is not there yet.
    pub fn restore_orphan(&mut self, shared: &mut Shared, hash: u64, orphan: Orphan, held: &[(u8, u16)]) {
        if let Some(parent) = &orphan.parent {
            self.waiting.entry(parent.key()).or_default().insert(hash);
        }
        self.orphans.insert(hash, orphan);
        for &(slot, copies) in held {
            self.put(shared, Entry { hash, slot, node: ORPHAN, copies });
        }
    }
}
