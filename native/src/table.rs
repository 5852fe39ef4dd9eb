//! A publisher's residency: engine hash and slot -> node and copies, 16 bytes an entry.
//!
//! Open addressing with linear probing in the order of spread hashes. The position is hash * capacity / 2^64, so the
//! capacity need not be a power of two: a table grows by a third, which keeps it between 56 % and 75 % full, and
//! growing walks both tables in order. One hash may have several entries, one for each slot; they lie in one probe
//! sequence.

use crate::hash::spread;

#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    pub hash: u64,
    /// The node of the block's own key; ORPHAN while that is not known.
    pub node: u32,
    /// 0: the entry is empty.
    pub copies: u16,
    pub slot: u8,
    _pad: u8,
}

pub const ORPHAN: u32 = u32::MAX;

impl Entry {
    pub fn new(hash: u64, slot: u8, node: u32, copies: u16) -> Self {
        Entry { hash, node, copies, slot, _pad: 0 }
    }
}

pub struct Table {
    entries: Vec<Entry>,
    len: usize,
    seed: u64,
}

impl Table {
    pub fn new(seed: u64) -> Self {
        Table { entries: Vec::new(), len: 0, seed }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        self.entries.capacity() * std::mem::size_of::<Entry>()
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        ((spread(hash, self.seed) as u128 * self.entries.len() as u128) >> 64) as usize
    }

    /// Ask for the cache line this hash is in.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        if !self.entries.is_empty() {
            prefetch(&self.entries[self.home(hash)]);
        }
    }

    /// First entry of the hash in probe order.
    #[inline]
    pub fn find_any(&self, hash: u64) -> Option<&Entry> {
        if self.len == 0 {
            return None;
        }
        let mut at = self.home(hash);
        loop {
            let entry = &self.entries[at];
            if entry.copies == 0 {
                return None;
            }
            if entry.hash == hash {
                return Some(entry);
            }
            at += 1;
            if at == self.entries.len() {
                at = 0;
            }
        }
    }

    /// The entry of this hash and slot, and the node of the hash if any slot has it.
    #[inline]
    pub fn find(&self, hash: u64, slot: u8) -> (Option<usize>, Option<u32>) {
        let mut node = None;
        if self.len == 0 {
            return (None, None);
        }
        let mut at = self.home(hash);
        loop {
            let entry = &self.entries[at];
            if entry.copies == 0 {
                return (None, node);
            }
            if entry.hash == hash {
                node = Some(entry.node);
                if entry.slot == slot {
                    return (Some(at), node);
                }
            }
            at += 1;
            if at == self.entries.len() {
                at = 0;
            }
        }
    }

    #[inline(always)]
    pub fn at(&mut self, place: usize) -> &mut Entry {
        &mut self.entries[place]
    }

    /// Add an entry that is not there.
    #[inline]
    pub fn insert(&mut self, entry: Entry) {
        if (self.len + 1) * 4 > self.entries.len() * 3 {
            self.resize((self.entries.len() * 4 / 3).max(8));
        }
        self.place(entry);
        self.len += 1;
    }

    #[inline(always)]
    fn place(&mut self, entry: Entry) {
        let mut at = self.home(entry.hash);
        while self.entries[at].copies != 0 {
            at += 1;
            if at == self.entries.len() {
                at = 0;
            }
        }
        self.entries[at] = entry;
    }

    fn resize(&mut self, capacity: usize) {
        let mut entries = Vec::new();
        entries.reserve_exact(capacity);
        entries.resize(capacity, Entry::default());
        let old = std::mem::replace(&mut self.entries, entries);
        for entry in old {
            if entry.copies != 0 {
                self.place(entry);
            }
        }
    }

    /// Take an entry out, closing the gap.
    pub fn remove(&mut self, place: usize) {
        let size = self.entries.len();
        let mut gap = place;
        let mut at = place;
        loop {
            at += 1;
            if at == size {
                at = 0;
            }
            let entry = self.entries[at];
            if entry.copies == 0 {
                break;
            }
            // It may move into the gap if its home is not between the gap and where it is.
            let home = self.home(entry.hash);
            let between = if gap <= at { gap < home && home <= at } else { gap < home || home <= at };
            if !between {
                self.entries[gap] = entry;
                gap = at;
            }
        }
        self.entries[gap] = Entry::default();
        self.len -= 1;
        if self.len * 3 < size && size > 64 {
            self.resize(self.len * 3 / 2 + 8);
        }
    }

    pub fn clear(&mut self) {
        self.entries = Vec::new();
        self.len = 0;
    }

    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.copies != 0)
    }

    /// Places of all entries of a hash.
    pub fn places(&self, hash: u64) -> Vec<usize> {
        let mut found = Vec::new();
        if self.len == 0 {
            return found;
        }
        let mut at = self.home(hash);
        while self.entries[at].copies != 0 {
            if self.entries[at].hash == hash {
                found.push(at);
            }
            at += 1;
            if at == self.entries.len() {
                at = 0;
            }
        }
        found
    }
}

#[inline(always)]
pub fn prefetch<T>(_at: &T) {
    #[cfg(target_arch = "x86_64")]
    // Safety: a prefetch of a valid reference; it has no effect on memory.
    unsafe {
        use std::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(_at).cast());
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
        for step in 0..200_000u32 {
            state = splitmix(state.wrapping_add(step as u64));
            let (hash, slot) = (state % 3000, (state >> 40) as u8 % 2);
            match table.find(hash, slot).0 {
                Some(place) => {
                    assert_eq!(model.remove(&(hash, slot)), Some(table.at(place).node));
                    table.remove(place);
                }
                None => {
                    assert!(model.insert((hash, slot), step).is_none());
                    table.insert(Entry::new(hash, slot, step, 1));
                }
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
        for (&(hash, slot), &node) in &model {
            let place = table.find(hash, slot).0.unwrap();
            assert_eq!(table.at(place).node, node);
            assert!(table.places(hash).contains(&place));
        }
    }
}
