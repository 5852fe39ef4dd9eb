//! An open-addressing table in segments: small pieces that grow one at a time.
//!
//! The high bits of an entry's hash choose the segment, the rest its home in it: home = rest * homes / 2^64, so their
//! number need not be a power of two. Linear probing in the order of hashes: a miss ends at the first entry whose hash is
//! larger, even in a table four fifths full, and growing is one pass that reads and writes in order. A
//! segment grows by two fifths, which keeps 57 to 80 % of the memory in use; because it is small (50 KiB at most for
//! 16-byte entries) that stays in the cache, its memory is used again for the next, and no insertion waits for a rehash
//! of everything: only the directory doubles, at powers of two of the size. Removal closes the gap; no tombstones.

use crate::hash::prefetch;

/// What lies in a table.
pub trait Cell: Copy {
    const EMPTY: Self;
    fn is_empty(&self) -> bool;
    /// Where the entry belongs: all 64 bits count, the high ones most.
    fn hash(&self, seed: u64) -> u64;
}

/// Where an entry lies; good until the next insertion or removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    segment: u32,
    at: u32,
}

/// `homes` cells in which entries belong, and some behind them for what is pushed on; the last is always empty.
struct Segment<T> {
    cells: Vec<T>,
    homes: usize,
    len: usize,
}

pub struct Segments<T> {
    segments: Vec<Segment<T>>,
    bits: u32,
    len: usize,
    pub seed: u64,
}

/// Mean entries a segment at which the directory doubles.
const MOST: usize = 2048;

/// Segment and rest of a hash.
#[inline(always)]
fn split(hash: u64, bits: u32) -> (usize, u64) {
    if bits == 0 {
        (0, hash)
    } else {
        ((hash >> (64 - bits)) as usize, hash << bits)
    }
}

impl<T: Cell> Segment<T> {
    fn with_homes(homes: usize) -> Self {
        let size = homes + homes / 16 + 8;
        let mut cells = Vec::new();
        cells.reserve_exact(size);
        cells.resize(size, T::EMPTY);
        Segment { cells, homes, len: 0 }
    }

    /// Homes for so many entries, 57 % full: room for two fifths more before the segment grows.
    fn for_len(len: usize) -> usize {
        len * 7 / 4 + 2
    }

    #[inline(always)]
    fn home(&self, rest: u64) -> usize {
        ((rest as u128 * self.homes as u128) >> 64) as usize
    }

    /// Entries in order of their hashes, into an empty segment of so many homes or more.
    fn filled(entries: &[T], mut homes: usize, seed: u64, bits: u32) -> Self {
        'larger: loop {
            let mut segment = Self::with_homes(homes);
            let mut next = 0;
            for cell in entries {
                if cell.is_empty() {
                    continue;
                }
                let at = segment.home(split(cell.hash(seed), bits).1).max(next);
                if at + 1 >= segment.cells.len() {
                    homes += homes / 8 + 8;
                    continue 'larger;
                }
                segment.cells[at] = *cell;
                next = at + 1;
                segment.len += 1;
            }
            return segment;
        }
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
        let cells: usize = self.segments.iter().map(|segment| segment.cells.capacity()).sum();
        cells * std::mem::size_of::<T>() + self.segments.capacity() * std::mem::size_of::<Segment<T>>()
    }

    /// Ask for the cache line a hash is in.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        let (number, rest) = split(hash, self.bits);
        if let Some(segment) = self.segments.get(number) {
            if let Some(cell) = segment.cells.get(segment.home(rest)) {
                prefetch(cell);
            }
        }
    }

    /// Look at the entries that may have this hash until `stop` says so; every one with this very hash is among them.
    #[inline(always)]
    pub fn probe(&self, hash: u64, mut stop: impl FnMut(&T) -> bool) -> Option<Place> {
        let (number, rest) = split(hash, self.bits);
        let segment = self.segments.get(number)?;
        let mut at = segment.home(rest);
        loop {
            let cell = &segment.cells[at];
            if cell.is_empty() {
                return None;
            }
            if stop(cell) {
                return Some(Place { segment: number as u32, at: at as u32 });
            }
            if cell.hash(self.seed) > hash {
                return None;
            }
            at += 1;
        }
    }

    #[inline(always)]
    pub fn get(&self, place: Place) -> &T {
        &self.segments[place.segment as usize].cells[place.at as usize]
    }

    /// For changes that leave the hash as it is.
    #[inline(always)]
    pub fn get_mut(&mut self, place: Place) -> &mut T {
        &mut self.segments[place.segment as usize].cells[place.at as usize]
    }

    /// Add an entry; `hash` is its hash.
    #[inline(always)]
    pub fn insert(&mut self, hash: u64, cell: T) {
        while !self.try_insert(hash, cell) {
            self.make_room(hash);
        }
        self.len += 1;
    }

    #[inline(always)]
    fn try_insert(&mut self, hash: u64, cell: T) -> bool {
        let (seed, bits) = (self.seed, self.bits);
        let (number, rest) = split(hash, bits);
        let Some(segment) = self.segments.get_mut(number) else {
            return false;
        };
        if (segment.len + 1) * 5 > segment.homes * 4 {
            return false;
        }
        let mut at = segment.home(rest);
        loop {
            let other = &segment.cells[at];
            if other.is_empty() {
                break;
            }
            if other.hash(seed) > hash {
                let end = at + segment.cells[at..].iter().position(T::is_empty).unwrap_or(0);
                if end + 1 >= segment.cells.len() {
                    return false;
                }
                for to in (at + 1..=end).rev() {
                    segment.cells[to] = segment.cells[to - 1];
                }
                break;
            }
            at += 1;
        }
        if at + 1 >= segment.cells.len() {
            return false;
        }
        segment.cells[at] = cell;
        segment.len += 1;
        true
    }

    #[cold]
    #[inline(never)]
    fn make_room(&mut self, hash: u64) {
        if self.segments.is_empty() {
            self.segments.push(Segment::with_homes(8));
        } else if self.len >= MOST << self.bits && self.bits < 24 {
            self.double();
        } else {
            let segment = &mut self.segments[split(hash, self.bits).0];
            let homes = (segment.homes * 7 / 5).max(segment.homes + 4);
            *segment = Segment::filled(&segment.cells, homes, self.seed, self.bits);
        }
    }

    /// Twice as many segments, each a half of an old one.
    fn double(&mut self) {
        self.bits += 1;
        let old = std::mem::take(&mut self.segments);
        self.segments.reserve_exact(old.len() * 2);
        for segment in old {
            // Entries lie in the order of their hashes, of which the next bit chooses the half.
            let upper = |cell: &T| !cell.is_empty() && split(cell.hash(self.seed), self.bits).0 & 1 == 1;
            let middle = segment.cells.iter().position(upper).unwrap_or(segment.cells.len());
            for half in [&segment.cells[..middle], &segment.cells[middle..]] {
                let len = half.iter().filter(|cell| !cell.is_empty()).count();
                self.segments.push(Segment::filled(half, Segment::<T>::for_len(len), self.seed, self.bits));
            }
        }
    }

    /// Take an entry out, closing the gap.
    #[inline]
    pub fn remove(&mut self, place: Place) {
        let (seed, bits) = (self.seed, self.bits);
        let segment = &mut self.segments[place.segment as usize];
        let at = place.at as usize;
        let mut end = at + 1;
        loop {
            let cell = segment.cells[end];
            if cell.is_empty() || segment.home(split(cell.hash(seed), bits).1) == end {
                break;
            }
            end += 1;
        }
        segment.cells.copy_within(at + 1..end, at);
        segment.cells[end - 1] = T::EMPTY;
        segment.len -= 1;
        self.len -= 1;
        if self.len == 0 {
            *self = Segments::new(seed);
        } else if segment.len * 3 < segment.homes && segment.homes > 32 {
            *segment = Segment::filled(&segment.cells, Segment::<T>::for_len(segment.len), seed, bits);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.segments.iter().flat_map(|segment| segment.cells.iter()).filter(|cell| !cell.is_empty())
    }
}
