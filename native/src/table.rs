//! A publisher's residency: engine hash and slot -> node and copies, 16 bytes an entry.
//!
//! One hash may have several entries, one for each slot; they lie on one way of probing.

use crate::hash::spread;
use crate::segments::{Cell, Place, Segments};

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub hash: u64,
    /// The node of the block's own key; ORPHAN while that is not known.
    pub node: u32,
    pub copies: u16,
    pub slot: u8,
}

pub const ORPHAN: u32 = u32::MAX;

impl Cell for Entry {
    #[inline(always)]
    fn hash(&self, seed: u64) -> u64 {
        spread(self.hash, seed)
    }
}

pub struct Table {
    entries: Segments<Entry>,
}

impl Table {
    pub fn new(seed: u64) -> Self {
        Table { entries: Segments::new(seed) }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }

    #[inline(always)]
    fn spread(&self, hash: u64) -> u64 {
        spread(hash, self.entries.seed)
    }

    /// Ask for the cache line this hash is in.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.entries.prefetch(self.spread(hash));
    }

    /// Ask for the cell a new entry of this hash will get.
    #[inline(always)]
    pub fn prefetch_free(&self, hash: u64) {
        self.entries.prefetch_free(self.spread(hash));
    }

    /// An entry of the hash, in whatever slot.
    #[inline]
    pub fn find_any(&self, hash: u64) -> Option<&Entry> {
        self.entries.probe(self.spread(hash), |entry| entry.hash == hash).map(|place| self.entries.get(place))
    }

    /// The entry of this hash and slot, and the node of the hash if any slot has it.
    #[inline(always)]
    pub fn find(&self, hash: u64, slot: u8) -> (Option<Place>, Option<u32>) {
        let mut node = None;
        let place = self.entries.probe(self.spread(hash), |entry| {
            if entry.hash != hash {
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

    /// Add an entry that is not there.
    #[inline(always)]
    pub fn insert(&mut self, entry: Entry) {
        self.entries.insert(self.spread(entry.hash), entry);
    }

    pub fn remove(&mut self, place: Place) {
        self.entries.remove(place);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Give every entry of a hash this node; returns their slots.
    pub fn rename(&mut self, hash: u64, node: u32) -> Vec<u8> {
        let mut slots = Vec::new();
        self.entries.probe(self.spread(hash), |entry| {
            if entry.hash == hash {
                slots.push(entry.slot);
            }
            false
        });
        for &slot in &slots {
            if let (Some(place), _) = self.find(hash, slot) {
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

    #[test]
    fn equals_a_map_under_churn() {
        let mut table = Table::new(7);
        let mut model: HashMap<(u64, u8), u32> = HashMap::new();
        let mut state = 1u64;
        for step in 0..400_000u32 {
            state = splitmix(state.wrapping_add(step as u64));
            // a long rise, a long fall: segments split, grow and shrink
            let range = if step < 250_000 { 60_000 } else { 300 };
            let (hash, slot) = (state % range, (state >> 40) as u8 % 2);
            match table.find(hash, slot).0 {
                Some(place) => {
                    assert_eq!(model.remove(&(hash, slot)), Some(table.at(place).node));
                    table.remove(place);
                }
                None => {
                    assert!(model.insert((hash, slot), step).is_none());
                    table.insert(Entry { hash, slot, node: step, copies: 1 });
                }
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
        for (&(hash, slot), &node) in &model {
            let place = table.find(hash, slot).0.unwrap();
            assert_eq!(table.at(place).node, node);
        }
        for &(hash, slot) in model.keys() {
            assert!(table.rename(hash, 7).contains(&slot));
            assert_eq!(table.find(hash, slot).1, Some(7));
        }
        for (hash, slot) in model.into_keys() {
            let place = table.find(hash, slot).0.unwrap();
            table.remove(place);
        }
        assert!(table.is_empty());
    }
    #[test]
    fn more_entries_of_one_home_than_a_group_can_count() {
        let mut table = Table::new(7);
        (0..50).for_each(|hash| table.insert(Entry { hash, slot: 0, node: 1, copies: 1 }));
        (0..1000).for_each(|node| table.insert(Entry { hash: 99, slot: 3, node, copies: 1 }));
        assert_eq!(table.len(), 1050);
        assert!(table.find(99, 2).0.is_none());
        for left in (0..1000).rev() {
            let place = table.find(99, 3).0.expect("one of those that are left");
            table.remove(place);
            assert_eq!(table.len(), 50 + left);
        }
        assert!(table.find_any(99).is_none());
        for hash in 0..50 {
            let place = table.find(hash, 0).0.expect("still there");
            table.remove(place);
        }
        assert!(table.is_empty());
    }
}
