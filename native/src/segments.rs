//! A hash table in segments: small pieces that grow one at a time.
//!
//! The high bits of an entry's hash choose the segment, the rest its home in it: home = rest * groups / 2^64, so their
//! number need not be a power of two. A group is 14 cells, whose tags (a byte of each hash) lie together and apart from
//! the cells: one comparison of 16 bytes says which cell may be the one, and a new entry is placed without a look at the
//! others (`tags`). What finds its group full goes to the next one; how many did is counted in the group, so that a miss
//! ends at the first group nobody passed and removal leaves no tombstones.
//!
//! A segment grows by three sevenths, which keeps 60 to 86 % of the cells in use; because it is small (55 KiB at most
//! for 16-byte entries) that stays in the cache, its memory is used again for the next, and no insertion waits for a
//! rehash of everything: only the directory doubles, at powers of two of the size.

use std::mem::MaybeUninit;

use crate::hash::prefetch;
use crate::tags::{Tags, SLOTS};

/// What lies in a table.
pub trait Cell: Copy {
    /// Where the entry belongs: the high 32 bits count.
    fn hash(&self, seed: u64) -> u64;
}

/// Where an entry lies; good until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u32,
    at: u32,
}

struct Segment<T> {
    tags: Box<[Tags]>,
    /// `SLOTS` for each of `tags`; written where the tag is not 0.
    cells: Box<[MaybeUninit<T>]>,
    len: u32,
}

pub struct Segments<T> {
    segments: Vec<Segment<T>>,
    bits: u32,
    len: usize,
    pub seed: u64,
}

/// Mean entries a segment at which the directory doubles.
const MOST: usize = 2048;
/// What a full segment grows by: from 60 to 86 % full and once more is the way from a halved segment to the next halving.
const GROWTH: (usize, usize) = (10, 7);
/// Entries a group on average, at most.
const FULL: usize = 12;

/// Segment and rest of a hash.
#[inline(always)]
fn split(hash: u64, bits: u32) -> (usize, u64) {
    if bits == 0 {
        (0, hash)
    } else {
        ((hash >> (64 - bits)) as usize, hash << bits)
    }
}

/// The byte of a hash that is kept beside its cell: none of those that choose the group, and never 0.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    ((hash >> 32) as u8).max(1)
}

impl<T: Cell> Segment<T> {
    fn with_groups(groups: usize) -> Self {
        let tags = vec![Tags::default(); groups].into_boxed_slice();
        Segment { tags, cells: Box::new_uninit_slice(groups * SLOTS), len: 0 }
    }

    /// Groups for so many entries, 60 % full: growing once by `GROWTH` then lasts until there are twice as many.
    fn groups_for(len: usize) -> usize {
        len * 5 / (3 * SLOTS) + 1
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.len as usize >= self.tags.len() * FULL
    }

    #[inline(always)]
    fn home(&self, rest: u64) -> usize {
        ((rest as u128 * self.tags.len() as u128) >> 64) as usize
    }

    #[inline(always)]
    fn after(&self, group: usize) -> usize {
        if group + 1 == self.tags.len() {
            0
        } else {
            group + 1
        }
    }

    /// Put an entry in at its home or the first group behind that has room; the segment is not full.
    #[inline(always)]
    fn put(&mut self, mut group: usize, hash: u64, cell: T) {
        let free = loop {
            if let Some(free) = self.tags[group].free() {
                break free;
            }
            self.tags[group].pass();
            group = self.after(group);
        };
        self.write(group, free, hash, cell);
    }

    #[inline(always)]
    fn write(&mut self, group: usize, at: usize, hash: u64, cell: T) {
        self.cells[group * SLOTS + at].write(cell);
        self.tags[group].set(at, tag(hash));
        self.len += 1;
    }

    /// A cell whose tag is not 0.
    #[inline(always)]
    fn cell(&self, at: usize) -> &T {
        debug_assert!(self.tags[at / SLOTS].taken().any(|taken| taken == at % SLOTS));
        // Safety: a tag is set only by `write`, which wrote the cell, and cells are plain values.
        unsafe { self.cells[at].assume_init_ref() }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        let places = self.tags.iter().enumerate();
        places.flat_map(move |(group, tags)| tags.taken().map(move |at| self.cell(group * SLOTS + at)))
    }

    fn each(&self, mut call: impl FnMut(&T)) {
        for (group, tags) in self.tags.iter().enumerate() {
            for at in tags.taken() {
                call(self.cell(group * SLOTS + at));
            }
        }
    }

    /// All entries into empty segments (one, or the halves of this one), each with room for its share.
    fn spill<const N: usize>(&self, mut to: [Self; N], seed: u64, bits: u32) -> [Self; N] {
        // How many each group has: read and written as single bytes, where the tags would have to wait for themselves.
        let mut counts = to.each_ref().map(|segment| vec![0u8; segment.tags.len()]);
        self.each(|cell| {
            let hash = cell.hash(seed);
            let (number, rest) = split(hash, bits);
            let (segment, counts) = (&mut to[number % N], &mut counts[number % N]);
            let mut group = segment.home(rest);
            while counts[group] as usize == SLOTS {
                segment.tags[group].pass();
                group = segment.after(group);
            }
            let at = counts[group] as usize;
            counts[group] += 1;
            segment.write(group, at, hash, *cell);
        });
        to
    }
}

impl<T: Cell> Segments<T> {
    pub fn new(seed: u64) -> Self {
        Segments { segments: Vec::new(), bits: 0, len: 0, seed }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn bytes(&self) -> usize {
        let groups: usize = self.segments.iter().map(|segment| segment.tags.len()).sum();
        groups * (SLOTS * std::mem::size_of::<T>() + std::mem::size_of::<Tags>())
            + self.segments.capacity() * std::mem::size_of::<Segment<T>>()
    }

    /// Ask for the tags of a hash.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        let (number, rest) = split(hash, self.bits);
        if let Some(segment) = self.segments.get(number) {
            prefetch(&segment.tags[segment.home(rest)]);
        }
    }

    /// Ask for the cell a new entry of this hash will get; reads the tags.
    #[inline(always)]
    pub fn prefetch_free(&self, hash: u64) {
        let (number, rest) = split(hash, self.bits);
        if let Some(segment) = self.segments.get(number) {
            let group = segment.home(rest);
            if let Some(cell) = segment.cells.get(group * SLOTS + segment.tags[group].free().unwrap_or(0)) {
                prefetch(cell);
            }
        }
    }

    /// Look at the entries that may have this hash until `stop` says so; every one with this very hash is among them.
    #[inline(always)]
    pub fn probe(&self, hash: u64, mut stop: impl FnMut(&T) -> bool) -> Option<Place> {
        let (number, rest) = split(hash, self.bits);
        let segment = self.segments.get(number)?;
        let mut group = segment.home(rest);
        let first = group;
        loop {
            let tags = &segment.tags[group];
            for at in tags.with(tag(hash)) {
                let at = group * SLOTS + at;
                if stop(segment.cell(at)) {
                    return Some(Place { segment: number as u32, at: at as u32 });
                }
            }
            if !tags.passed() {
                return None;
            }
            group = segment.after(group);
            if group == first {
                return None;
            }
        }
    }

    #[inline(always)]
    pub fn get(&self, place: Place) -> &T {
        assert!(
            self.segments[place.segment as usize].tags[place.at as usize / SLOTS].at(place.at as usize % SLOTS) != 0
        );
        self.segments[place.segment as usize].cell(place.at as usize)
    }

    /// For changes that leave the hash as it is.
    #[inline(always)]
    pub fn get_mut(&mut self, place: Place) -> &mut T {
        let (segment, at) = (&mut self.segments[place.segment as usize], place.at as usize);
        assert!(segment.tags[at / SLOTS].at(at % SLOTS) != 0, "an entry that is there");
        // Safety: as in `Segment::cell`.
        unsafe { segment.cells[at].assume_init_mut() }
    }

    /// Add an entry; `hash` is its hash.
    #[inline(always)]
    pub fn insert(&mut self, hash: u64, cell: T) {
        let (mut number, mut rest) = split(hash, self.bits);
        while self.segments.get(number).is_none_or(|segment| segment.is_full()) {
            self.make_room(hash);
            (number, rest) = split(hash, self.bits);
        }
        let segment = &mut self.segments[number];
        segment.put(segment.home(rest), hash, cell);
        self.len += 1;
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, hash: u64) {
        if self.segments.is_empty() {
            self.segments.push(Segment::with_groups(1));
        } else if self.len >= MOST << self.bits && self.bits < 24 {
            self.double();
        } else {
            let segment = &mut self.segments[split(hash, self.bits).0];
            let groups = segment.tags.len();
            let larger = Segment::with_groups((groups * GROWTH.0 / GROWTH.1).max(groups + 1));
            [*segment] = segment.spill([larger], self.seed, self.bits);
        }
    }

    /// Twice as many segments, each a half of an old one.
    fn double(&mut self) {
        self.bits += 1;
        let old = std::mem::take(&mut self.segments);
        self.segments.reserve_exact(old.len() * 2);
        for segment in old {
            let mut upper = 0;
            segment.each(|cell| upper += split(cell.hash(self.seed), self.bits).0 & 1);
            let halves = [segment.len as usize - upper, upper];
            let halves = halves.map(|len| Segment::with_groups(Segment::<T>::groups_for(len)));
            self.segments.extend(segment.spill(halves, self.seed, self.bits));
        }
    }

    /// Take an entry out.
    #[inline]
    pub fn remove(&mut self, place: Place) {
        let (seed, bits) = (self.seed, self.bits);
        let segment = &mut self.segments[place.segment as usize];
        let at = place.at as usize;
        let mut group = segment.home(split(segment.cell(at).hash(seed), bits).1);
        while group != at / SLOTS {
            segment.tags[group].unpass();
            group = segment.after(group);
        }
        segment.tags[group].set(at % SLOTS, 0);
        segment.len -= 1;
        self.len -= 1;
        if self.len == 0 {
            *self = Segments::new(seed);
        } else if (segment.len as usize) * 3 < segment.cells.len() && segment.tags.len() > 2 {
            let smaller = Segment::with_groups(Segment::<T>::groups_for(segment.len as usize));
            [*segment] = segment.spill([smaller], seed, bits);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flat_map(Segment::iter)
    }
}
