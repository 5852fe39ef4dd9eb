//! A hash table in segments: small pieces that grow one at a time.
//!
//! The high bits of an entry's hash choose the segment, and the remaining bits its home bucket there:
//! `rest * buckets / 2^64`, so that the number of buckets need not be a power of two. A bucket has 14 cells, whose tags
//! (one byte of each hash) lie together and apart from the cells: one comparison of 16 bytes finds the cells that may
//! hold an entry, and a new entry is placed without reading the others (`tags`). An entry whose home bucket is full goes
//! to the next bucket that has room. Each bucket that it passes counts it as overflow, so a search ends at the first
//! bucket without overflow, and a removal leaves no tombstone.
//!
//! A segment grows by three sevenths, which keeps 60 to 86 % of its cells in use. Segments are small (at most 55 KiB for
//! 16-byte entries), so a segment is rebuilt within the processor's cache, its memory is reused by the next one, and no
//! insertion waits for a rehash of the whole table. Only the directory doubles, whenever the mean size of a segment
//! reaches its limit.

mod segment;

use std::ops::Range;

use crate::hash::prefetch;
use crate::tags::{Tags, CELLS};
pub(crate) use segment::Cell;
use segment::{split, tag, Segment};

/// The position of an entry; valid until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    segment: u32,
    cell: u32,
}

/// The table: a directory of segments.
pub(crate) struct Segments<T> {
    segments: Vec<Segment<T>>,
    /// High bits of a hash that choose the segment.
    bits: u32,
    len: usize,
    seed: u64,
}

/// The mean number of entries per segment at which the directory doubles.
const MAX_MEAN_ENTRIES: usize = 2048;
/// The factor by which a full segment grows, as a fraction. A segment that was just halved is 60 % full; it grows once
/// at 86 %, and at 86 % again it is due to be halved.
const GROWTH: (usize, usize) = (10, 7);

impl<T: Cell> Segments<T> {
    pub fn new(seed: u64) -> Self {
        Segments { segments: Vec::new(), bits: 0, len: 0, seed }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bytes(&self) -> usize {
        let buckets: usize = self.segments.iter().map(|segment| segment.tags.len()).sum();
        buckets * (CELLS * std::mem::size_of::<T>() + std::mem::size_of::<Tags>())
            + self.segments.capacity() * std::mem::size_of::<Segment<T>>()
    }

    /// Prefetch the tags of a hash's home bucket.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        let (number, rest) = split(hash, self.bits);
        if let Some(segment) = self.segments.get(number) {
            prefetch(&segment.tags[segment.home_bucket(rest)]);
        }
    }

    /// Prefetch the cell that a new entry of this hash would get; this reads the tags.
    #[inline(always)]
    pub fn prefetch_free(&self, hash: u64) {
        let (number, rest) = split(hash, self.bits);
        if let Some(segment) = self.segments.get(number) {
            let bucket = segment.home_bucket(rest);
            if let Some(cell) = segment.cells.get(bucket * CELLS + segment.tags[bucket].free().unwrap_or(0)) {
                prefetch(cell);
            }
        }
    }

    /// Visit the entries that may have this hash until `stop` returns true. Every entry that has it is among them.
    #[inline(always)]
    pub fn probe(&self, hash: u64, mut stop: impl FnMut(&T) -> bool) -> Option<Place> {
        let (number, rest) = split(hash, self.bits);
        let segment = self.segments.get(number)?;
        let mut bucket = segment.home_bucket(rest);
        let first = bucket;
        loop {
            let tags = &segment.tags[bucket];
            for at in tags.with(tag(hash)) {
                let at = bucket * CELLS + at;
                if stop(segment.cell(at)) {
                    return Some(Place { segment: number as u32, cell: at as u32 });
                }
            }
            if !tags.has_overflow() {
                return None;
            }
            bucket = segment.next_bucket(bucket);
            if bucket == first {
                return None;
            }
        }
    }

    #[inline(always)]
    pub fn get(&self, place: Place) -> &T {
        let (segment, at) = (&self.segments[place.segment as usize], place.cell as usize);
        assert!(segment.tags[at / CELLS].at(at % CELLS) != 0, "a place without an entry");
        segment.cell(at)
    }

    /// The entry, for changes that do not touch its hash.
    #[inline(always)]
    pub fn get_mut(&mut self, place: Place) -> &mut T {
        let (segment, at) = (&mut self.segments[place.segment as usize], place.cell as usize);
        assert!(segment.tags[at / CELLS].at(at % CELLS) != 0, "a place without an entry");
        // Safety: as in `Segment::cell`; the tag was checked.
        unsafe { segment.cells[at].assume_init_mut() }
    }

    /// Add an entry whose hash is `hash`.
    #[inline(always)]
    pub fn insert(&mut self, hash: u64, cell: T) {
        let (mut number, mut rest) = split(hash, self.bits);
        while self.segments.get(number).is_none_or(|segment| segment.is_full()) {
            self.make_room(hash);
            (number, rest) = split(hash, self.bits);
        }
        let segment = &mut self.segments[number];
        segment.put(segment.home_bucket(rest), hash, cell);
        self.len += 1;
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, hash: u64) {
        if self.segments.is_empty() {
            self.segments.push(Segment::with_buckets(1));
        } else if self.len >= MAX_MEAN_ENTRIES << self.bits && self.bits < 24 {
            self.double();
        } else {
            let segment = &mut self.segments[split(hash, self.bits).0];
            let buckets = segment.tags.len();
            let larger = Segment::with_buckets((buckets * GROWTH.0 / GROWTH.1).max(buckets + 1));
            [*segment] = segment.spill([larger], self.seed, self.bits);
        }
    }

    /// Double the directory: each segment becomes two halves.
    fn double(&mut self) {
        self.bits += 1;
        let old = std::mem::take(&mut self.segments);
        self.segments.reserve_exact(old.len() * 2);
        for segment in old {
            let mut upper = 0;
            segment.each(|cell| upper += split(cell.hash(self.seed), self.bits).0 & 1);
            let halves = [segment.len as usize - upper, upper];
            let halves = halves.map(|len| Segment::with_buckets(Segment::<T>::buckets_for(len)));
            self.segments.extend(segment.spill(halves, self.seed, self.bits));
        }
    }

    /// Remove an entry.
    #[inline]
    pub fn remove(&mut self, place: Place) {
        let (seed, bits) = (self.seed, self.bits);
        let segment = &mut self.segments[place.segment as usize];
        let at = place.cell as usize;
        let mut bucket = segment.home_bucket(split(segment.cell(at).hash(seed), bits).1);
        while bucket != at / CELLS {
            segment.tags[bucket].uncount_overflow();
            bucket = segment.next_bucket(bucket);
        }
        segment.tags[bucket].set(at % CELLS, 0);
        segment.len -= 1;
        self.len -= 1;
        if self.len == 0 {
            *self = Segments::new(seed);
        } else if (segment.len as usize) * 3 < segment.cells.len() && segment.tags.len() > 2 {
            let smaller = Segment::with_buckets(Segment::<T>::buckets_for(segment.len as usize));
            [*segment] = segment.spill([smaller], seed, bits);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flat_map(Segment::iter)
    }

    /// The number of segments.
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// The entries of these segments, as far as there are so many.
    pub fn iter_part(&self, part: Range<usize>) -> impl Iterator<Item = &T> {
        let end = part.end.min(self.segments.len());
        self.segments[part.start.min(end)..end].iter().flat_map(Segment::iter)
    }
}
