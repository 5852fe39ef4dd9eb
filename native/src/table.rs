//! The residency of one publisher: block and slot -> node and copies, 16 bytes per entry.
//!
//! A block may have one entry per slot. They all have the same home bucket, so one search finds them.

use std::ops::Range;

use crate::hash::spread;
use crate::ids::{BlockId, NodeId, SizeNumber, SlotId};
use crate::segments::{Cell, Place, Segments};

/// A block that is resident in one slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub id: BlockId,
    /// The node of the block's prefix key; `NodeId::ORPHAN` while that key is not known.
    pub node: NodeId,
    pub copies: u16,
    pub slot: SlotId,
    pub size: SizeNumber,
}

impl Cell for Entry {
    #[inline(always)]
    fn hash(&self, seed: u64) -> u64 {
        spread(self.id, seed)
    }
}

/// All entries of a publisher.
pub(crate) struct Table {
    entries: Segments<Entry>,
    seed: u64,
}

impl Table {
    pub fn new(seed: u64) -> Self {
        Table { entries: Segments::new(seed), seed }
    }

    /// Take all entries out.
    pub fn take(&mut self) -> Table {
        let seed = self.seed;
        std::mem::replace(self, Table::new(seed))
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    #[inline(always)]
    fn spread(&self, id: BlockId) -> u64 {
        spread(id, self.seed)
    }

    /// Prefetch the tags of the block's home bucket.
    #[inline(always)]
    pub fn prefetch(&self, id: BlockId) {
        self.entries.prefetch(self.spread(id));
    }

    /// Prefetch the cell that a new entry of this block would get.
    #[inline(always)]
    pub fn prefetch_free(&self, id: BlockId) {
        self.entries.prefetch_free(self.spread(id));
    }

    /// An entry of the block in any slot.
    #[inline]
    pub fn find_any(&self, id: BlockId) -> Option<&Entry> {
        self.entries.probe(self.spread(id), |entry| entry.id == id).map(|place| self.entries.get(place))
    }

    /// The entry of the block in this slot, and the node of the block if it has an entry in any slot.
    #[inline(always)]
    pub fn find(&self, id: BlockId, slot: SlotId) -> (Option<Place>, Option<NodeId>) {
        let mut node = None;
        let place = self.entries.probe(self.spread(id), |entry| {
            if entry.id != id {
                return false;
            }
            node = Some(entry.node);
            entry.slot == slot
        });
        (place, node)
    }

    #[inline(always)]
    pub fn at(&mut self, place: Place) -> &mut Entry {
        self.entries.get_mut(place)
    }

    /// Add an entry; there must be none of the same block and slot.
    #[inline(always)]
    pub fn insert(&mut self, entry: Entry) {
        self.entries.insert(self.spread(entry.id), entry);
    }

    pub fn remove(&mut self, place: Place) {
        self.entries.remove(place);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The number of parts that `iter_part` can read.
    pub fn parts(&self) -> usize {
        self.entries.count()
    }

    /// The entries of some parts. Every entry is in one part.
    pub fn iter_part(&self, part: Range<usize>) -> impl Iterator<Item = &Entry> {
        self.entries.iter_part(part)
    }

    /// Give every entry of a block this node, and return their slots.
    pub fn set_node(&mut self, id: BlockId, node: NodeId) -> Vec<SlotId> {
        let mut slots = Vec::new();
        self.entries.probe(self.spread(id), |entry| {
            if entry.id == id {
                slots.push(entry.slot);
            }
            false
        });
        for &slot in &slots {
            if let (Some(place), _) = self.find(id, slot) {
                self.entries.get_mut(place).node = node;
            }
        }
        slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::splitmix;
    use std::collections::HashMap;

    fn entry(hash: u64, slot: u8, node: u32) -> Entry {
        Entry { id: BlockId(hash), slot: SlotId(slot), node: NodeId(node), copies: 1, size: SizeNumber(0) }
    }

    fn place(table: &Table, hash: u64, slot: u8) -> Option<Place> {
        table.find(BlockId(hash), SlotId(slot)).0
    }

    #[test]
    fn equals_a_map_under_churn() {
        let mut table = Table::new(7);
        let mut model: HashMap<(u64, u8), u32> = HashMap::new();
        let mut state = 1u64;
        for step in 0..400_000u32 {
            state = splitmix(state.wrapping_add(step as u64));
            // a long rise and a long fall, so that segments split, grow and shrink
            let range = if step < 250_000 { 60_000 } else { 300 };
            let (hash, slot) = (state % range, (state >> 40) as u8 % 2);
            match place(&table, hash, slot) {
                Some(found) => {
                    assert_eq!(model.remove(&(hash, slot)), Some(table.at(found).node.0));
                    table.remove(found);
                }
                None => {
                    assert!(model.insert((hash, slot), step).is_none());
                    table.insert(entry(hash, slot, step));
                }
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
        for (&(hash, slot), &node) in &model {
            let found = place(&table, hash, slot).unwrap();
            assert_eq!(table.at(found).node, NodeId(node));
        }
        for &(hash, slot) in model.keys() {
            assert!(table.set_node(BlockId(hash), NodeId(7)).contains(&SlotId(slot)));
            assert_eq!(table.find(BlockId(hash), SlotId(slot)).1, Some(NodeId(7)));
        }
        for (hash, slot) in model.into_keys() {
            let found = place(&table, hash, slot).unwrap();
            table.remove(found);
        }
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn more_entries_of_one_home_than_the_overflow_count_can_hold() {
        let mut table = Table::new(7);
        (0..50).for_each(|hash| table.insert(entry(hash, 0, 1)));
        (0..1000).for_each(|node| table.insert(entry(99, 3, node)));
        assert_eq!(table.len(), 1050);
        assert!(place(&table, 99, 2).is_none());
        for left in (0..1000).rev() {
            let found = place(&table, 99, 3).expect("one of those that are left");
            table.remove(found);
            assert_eq!(table.len(), 50 + left);
        }
        assert!(table.find_any(BlockId(99)).is_none());
        for hash in 0..50 {
            let found = place(&table, hash, 0).expect("still there");
            table.remove(found);
        }
        assert_eq!(table.len(), 0);
    }
}
