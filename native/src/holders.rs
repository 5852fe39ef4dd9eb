//! Who holds a block: sets of columns, each distinct set stored once.
//!
//! A column is one slot (medium and group) of one publisher. The blocks of a chain are held by the same publishers far
//! more often than not, so a node has only the number of its set, a match compares numbers, and 64 holders cost no more
//! than one. A set of one column is the column's number itself.

use std::collections::HashMap;

use crate::hash::splitmix;

/// Handle of the empty set.
pub const NOBODY: u32 = u32::MAX;
const MANY: u32 = 1 << 31;

struct Set {
    words: Box<[u64]>,
    /// Exclusive or of its columns' hashes.
    hash: u64,
    /// Nodes that refer to it; 0: free.
    uses: u32,
    count: u32,
}

pub struct Holders {
    sets: Vec<Set>,
    free: Vec<u32>,
    index: HashMap<u64, u32, Ready>,
    seed: u64,
    /// The last step: from, column and to; good while `to` is alive and is that set.
    last_add: (u32, u32, u32),
    last_remove: (u32, u32, u32),
}

/// Keys that are hashes already.
#[derive(Clone, Copy, Default)]
pub struct Ready;

pub struct ReadyHasher(u64);

impl std::hash::BuildHasher for Ready {
    type Hasher = ReadyHasher;
    fn build_hasher(&self) -> ReadyHasher {
        ReadyHasher(0)
    }
}

impl std::hash::Hasher for ReadyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only 64-bit keys")
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

impl Holders {
    pub fn new(seed: u64) -> Self {
        let none = (NOBODY, NOBODY, NOBODY);
        Holders {
            sets: Vec::new(),
            free: Vec::new(),
            index: HashMap::default(),
            seed,
            last_add: none,
            last_remove: none,
        }
    }

    pub fn bytes(&self) -> usize {
        let words: usize = self.sets.iter().map(|set| set.words.len() * 8).sum();
        self.sets.capacity() * std::mem::size_of::<Set>() + words + self.index.capacity() * 24
    }

    /// Distinct sets of two and more.
    pub fn distinct(&self) -> usize {
        self.index.len()
    }

    #[inline(always)]
    fn column_hash(&self, column: u32) -> u64 {
        splitmix(self.seed ^ (column as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    #[inline(always)]
    fn hash(&self, handle: u32) -> u64 {
        if handle & MANY == 0 {
            self.column_hash(handle)
        } else {
            self.sets[(handle & !MANY) as usize].hash
        }
    }

    #[inline(always)]
    pub fn contains(&self, handle: u32, column: u32) -> bool {
        if handle & MANY == 0 {
            return handle == column;
        }
        if handle == NOBODY {
            return false;
        }
        let words = &self.sets[(handle & !MANY) as usize].words;
        words.get(column as usize / 64).is_some_and(|word| word >> (column % 64) & 1 == 1)
    }

    /// Call with every column of the set, ascending.
    pub fn each(&self, handle: u32, mut call: impl FnMut(u32)) {
        if handle == NOBODY {
            return;
        }
        if handle & MANY == 0 {
            return call(handle);
        }
        for (at, &word) in self.sets[(handle & !MANY) as usize].words.iter().enumerate() {
            let mut word = word;
            while word != 0 {
                call(at as u32 * 64 + word.trailing_zeros());
                word &= word - 1;
            }
        }
    }

    /// Call with every column in which two sets differ.
    pub fn each_difference(&self, one: u32, two: u32, mut call: impl FnMut(u32)) {
        let mut single = [[0u64; 1]; 2];
        let (first, first_at) = self.view(one, &mut single[0]);
        let mut other = [0u64; 1];
        let (second, second_at) = self.view(two, &mut other);
        let end = (first_at + first.len()).max(second_at + second.len());
        let word = |words: &[u64], start: usize, at: usize| {
            if at >= start && at < start + words.len() {
                words[at - start]
            } else {
                0
            }
        };
        for at in first_at.min(second_at)..end {
            let mut changed = word(first, first_at, at) ^ word(second, second_at, at);
            while changed != 0 {
                call(at as u32 * 64 + changed.trailing_zeros());
                changed &= changed - 1;
            }
        }
    }

    fn view<'a>(&'a self, handle: u32, single: &'a mut [u64; 1]) -> (&'a [u64], usize) {
        if handle == NOBODY {
            (&[], 0)
        } else if handle & MANY == 0 {
            single[0] = 1 << (handle % 64);
            (&single[..], handle as usize / 64)
        } else {
            (&self.sets[(handle & !MANY) as usize].words, 0)
        }
    }

    /// The set with the column, which it does not have yet. The reference to the old set becomes one to the new.
    #[inline]
    pub fn add(&mut self, handle: u32, column: u32) -> u32 {
        if handle == NOBODY {
            return column;
        }
        let hash = self.hash(handle) ^ self.column_hash(column);
        let found = match self.recall(self.last_add, handle, column, hash) {
            Some(set) => set,
            None => {
                let set = self.intern(handle, column, hash);
                self.last_add = (handle, column, set);
                set
            }
        };
        self.sets[found as usize].uses += 1;
        self.release(handle);
        found | MANY
    }

    /// The set without the column, which it has.
    #[inline]
    pub fn remove(&mut self, handle: u32, column: u32) -> u32 {
        if handle & MANY == 0 {
            return NOBODY;
        }
        if self.sets[(handle & !MANY) as usize].count == 2 {
            let mut left = NOBODY;
            self.each(handle, |one| {
                if one != column {
                    left = one;
                }
            });
            self.release(handle);
            return left;
        }
        let hash = self.hash(handle) ^ self.column_hash(column);
        let found = match self.recall(self.last_remove, handle, column, hash) {
            Some(set) => set,
            None => {
                let set = self.intern(handle, column, hash);
                self.last_remove = (handle, column, set);
                set
            }
        };
        self.sets[found as usize].uses += 1;
        self.release(handle);
        found | MANY
    }

    #[inline(always)]
    fn recall(&self, last: (u32, u32, u32), handle: u32, column: u32, hash: u64) -> Option<u32> {
        if last.0 != handle || last.1 != column {
            return None;
        }
        let set = &self.sets[last.2 as usize];
        (set.uses != 0 && set.hash == hash).then_some(last.2)
    }

    /// The stored set that is `handle` with `column` flipped; made with no uses if it is not there.
    fn intern(&mut self, handle: u32, column: u32, hash: u64) -> u32 {
        let mut words = {
            let mut single = [0u64; 1];
            let (view, start) = self.view(handle, &mut single);
            let size = (start + view.len()).max(column as usize / 64 + 1);
            let mut words = vec![0u64; size];
            words[start..start + view.len()].copy_from_slice(view);
            words
        };
        words[column as usize / 64] ^= 1 << (column % 64);
        while words.last() == Some(&0) {
            words.pop();
        }
        let known = self.index.get(&hash).copied();
        if let Some(set) = known {
            if *self.sets[set as usize].words == words[..] {
                return set;
            }
        }
        let count = words.iter().map(|word| word.count_ones()).sum();
        let set = Set { words: words.into_boxed_slice(), hash, uses: 0, count };
        let number = match self.free.pop() {
            Some(number) => {
                self.sets[number as usize] = set;
                number
            }
            None => {
                self.sets.push(set);
                assert!(self.sets.len() < MANY as usize - 1, "two billion distinct sets of holders");
                self.sets.len() as u32 - 1
            }
        };
        if known.is_none() {
            self.index.insert(hash, number);
        } // else two sets share 64 bits of hash: this one is not found again, which only costs memory
        number
    }

    #[inline]
    fn release(&mut self, handle: u32) {
        if handle & MANY == 0 {
            return;
        }
        let number = handle & !MANY;
        let set = &mut self.sets[number as usize];
        set.uses -= 1;
        if set.uses == 0 {
            let hash = set.hash;
            set.words = Box::default();
            if self.index.get(&hash) == Some(&number) {
                self.index.remove(&hash);
            }
            self.free.push(number);
        }
    }
}
