//! Sets of holders, each distinct set stored once.
//!
//! A node refers to its set by number. The blocks of a chain are nearly always held by the same publishers, so a match
//! only compares these numbers, and a block with 64 holders takes no more memory than a block with one. A set of one
//! column is represented by the column's own number.

use std::collections::HashMap;

use crate::hash::splitmix;
use crate::identity::Identity;
use crate::ids::Column;

/// A reference to a set: the empty one, a single column, or (with the highest bit set) a position among the stored sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct HolderSet(u32);

const STORED: u32 = 1 << 31;

impl HolderSet {
    /// The set without any column.
    pub const EMPTY: HolderSet = HolderSet(u32::MAX);

    #[inline(always)]
    fn of(column: Column) -> Self {
        HolderSet(column.0)
    }

    #[inline(always)]
    fn stored(index: u32) -> Self {
        HolderSet(index | STORED)
    }

    /// The only column of the set.
    #[inline(always)]
    fn single(self) -> Option<Column> {
        (self.0 & STORED == 0).then_some(Column(self.0))
    }

    /// The position of a set that is neither empty nor single.
    #[inline(always)]
    fn index(self) -> usize {
        (self.0 & !STORED) as usize
    }
}

struct Set {
    /// One bit per column; the last word is never 0.
    words: Box<[u64]>,
    /// The hashes of its columns, combined by exclusive or.
    hash: u64,
    /// Nodes that refer to the set; 0 for a free place.
    uses: u32,
    count: u32,
}

/// The last change of a kind: `from` with `column` added or removed became the stored set at `to`.
#[derive(Clone, Copy)]
struct Step {
    from: HolderSet,
    column: Column,
    to: u32,
}

/// All sets of two and more columns that some node refers to.
pub(crate) struct Holders {
    sets: Vec<Set>,
    free: Vec<u32>,
    index: HashMap<u64, u32, Identity>,
    seed: u64,
    last_add: Option<Step>,
    last_remove: Option<Step>,
}

impl Holders {
    pub fn new(seed: u64) -> Self {
        Holders {
            sets: Vec::new(),
            free: Vec::new(),
            index: HashMap::default(),
            seed,
            last_add: None,
            last_remove: None,
        }
    }

    pub fn bytes(&self) -> usize {
        let words: usize = self.sets.iter().map(|set| set.words.len() * 8).sum();
        self.sets.capacity() * std::mem::size_of::<Set>() + words + self.index.capacity() * 24
    }

    /// How many distinct sets of two and more columns there are.
    pub fn distinct(&self) -> usize {
        self.index.len()
    }

    #[inline(always)]
    fn column_hash(&self, column: Column) -> u64 {
        splitmix(self.seed ^ (column.0 as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    #[inline(always)]
    fn hash(&self, set: HolderSet) -> u64 {
        match set.single() {
            Some(column) => self.column_hash(column),
            None => self.sets[set.index()].hash,
        }
    }

    #[inline(always)]
    pub fn contains(&self, set: HolderSet, column: Column) -> bool {
        if let Some(only) = set.single() {
            return only == column;
        }
        if set == HolderSet::EMPTY {
            return false;
        }
        let word = self.sets[set.index()].words.get(column.index() / 64);
        word.is_some_and(|word| word >> (column.0 % 64) & 1 == 1)
    }

    /// Call with every column of the set, ascending.
    pub fn each(&self, set: HolderSet, mut call: impl FnMut(Column)) {
        if set == HolderSet::EMPTY {
            return;
        }
        if let Some(only) = set.single() {
            return call(only);
        }
        for (at, &word) in self.sets[set.index()].words.iter().enumerate() {
            each_bit(at, word, &mut call);
        }
    }

    /// Call with every column that is in one of the sets only.
    pub fn each_difference(&self, one: HolderSet, two: HolderSet, mut call: impl FnMut(Column)) {
        let (mut first, mut second) = ([0u64; 1], [0u64; 1]);
        let (first, first_at) = self.words(one, &mut first);
        let (second, second_at) = self.words(two, &mut second);
        let end = (first_at + first.len()).max(second_at + second.len());
        let word = |words: &[u64], start: usize, at: usize| {
            if at >= start && at < start + words.len() {
                words[at - start]
            } else {
                0
            }
        };
        for at in first_at.min(second_at)..end {
            each_bit(at, word(first, first_at, at) ^ word(second, second_at, at), &mut call);
        }
    }

    /// The words of a set, and the position of the first of them; `single` is where a single column's word is made.
    fn words<'a>(&'a self, set: HolderSet, single: &'a mut [u64; 1]) -> (&'a [u64], usize) {
        if set == HolderSet::EMPTY {
            return (&[], 0);
        }
        match set.single() {
            Some(column) => {
                single[0] = 1 << (column.0 % 64);
                (&single[..], column.index() / 64)
            }
            None => (&self.sets[set.index()].words, 0),
        }
    }

    /// The set with a column that it does not have yet. A reference to the old set becomes one to the new.
    #[inline]
    pub fn add(&mut self, set: HolderSet, column: Column) -> HolderSet {
        if set == HolderSet::EMPTY {
            return HolderSet::of(column);
        }
        let hash = self.hash(set) ^ self.column_hash(column);
        let found = match self.recall(self.last_add, set, column, hash) {
            Some(found) => found,
            None => {
                let to = self.intern(set, column, hash);
                self.last_add = Some(Step { from: set, column, to });
                to
            }
        };
        self.replace(set, found)
    }

    /// The set without a column that it has. A reference to the old set becomes one to the new.
    #[inline]
    pub fn remove(&mut self, set: HolderSet, column: Column) -> HolderSet {
        if set.single().is_some() {
            return HolderSet::EMPTY;
        }
        if self.sets[set.index()].count == 2 {
            let mut left = HolderSet::EMPTY;
            self.each(set, |one| {
                if one != column {
                    left = HolderSet::of(one);
                }
            });
            self.release(set);
            return left;
        }
        let hash = self.hash(set) ^ self.column_hash(column);
        let found = match self.recall(self.last_remove, set, column, hash) {
            Some(found) => found,
            None => {
                let to = self.intern(set, column, hash);
                self.last_remove = Some(Step { from: set, column, to });
                to
            }
        };
        self.replace(set, found)
    }

    #[inline(always)]
    fn replace(&mut self, old: HolderSet, new: u32) -> HolderSet {
        self.sets[new as usize].uses += 1;
        self.release(old);
        HolderSet::stored(new)
    }

    /// The result of the last step of this kind, if it was the same step and its result is still in use.
    #[inline(always)]
    fn recall(&self, last: Option<Step>, set: HolderSet, column: Column, hash: u64) -> Option<u32> {
        let last = last.filter(|last| last.from == set && last.column == column)?;
        let known = &self.sets[last.to as usize];
        (known.uses != 0 && known.hash == hash).then_some(last.to)
    }

    /// The stored set that is `set` with `column` flipped; made, with no uses, if it is not stored yet.
    fn intern(&mut self, set: HolderSet, column: Column, hash: u64) -> u32 {
        let words = self.flipped(set, column);
        let known = self.index.get(&hash).copied();
        if let Some(found) = known {
            if *self.sets[found as usize].words == words[..] {
                return found;
            }
        }
        let count = words.iter().map(|word| word.count_ones()).sum();
        let made = Set { words: words.into_boxed_slice(), hash, uses: 0, count };
        let number = match self.free.pop() {
            Some(number) => {
                self.sets[number as usize] = made;
                number
            }
            None => {
                self.sets.push(made);
                assert!(self.sets.len() < STORED as usize - 1, "more than two billion distinct sets of holders");
                self.sets.len() as u32 - 1
            }
        };
        if known.is_none() {
            self.index.insert(hash, number);
        } // otherwise two sets share a 64-bit hash: this one is not found again, which only costs memory
        number
    }

    fn flipped(&self, set: HolderSet, column: Column) -> Vec<u64> {
        let mut single = [0u64; 1];
        let (known, start) = self.words(set, &mut single);
        let mut words = vec![0u64; (start + known.len()).max(column.index() / 64 + 1)];
        words[start..start + known.len()].copy_from_slice(known);
        words[column.index() / 64] ^= 1 << (column.0 % 64);
        while words.last() == Some(&0) {
            words.pop();
        }
        words
    }

    #[inline]
    fn release(&mut self, handle: HolderSet) {
        if handle.single().is_some() {
            return;
        }
        let number = handle.index() as u32;
        let set = &mut self.sets[handle.index()];
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

#[inline(always)]
fn each_bit(at: usize, mut word: u64, call: &mut impl FnMut(Column)) {
    while word != 0 {
        call(Column(at as u32 * 64 + word.trailing_zeros()));
        word &= word - 1;
    }
}
