//! One segment: buckets of cells, and how entries are placed in them.

use std::mem::MaybeUninit;

use crate::tags::{Tags, CELLS};

/// An entry of a table.
pub(crate) trait Cell: Copy {
    /// The hash that places the entry; only its high 32 bits are used.
    fn hash(&self, seed: u64) -> u64;
}

/// One piece of the table.
pub(super) struct Segment<T> {
    pub(super) tags: Box<[Tags]>,
    /// `CELLS` per bucket; initialised where the tag is not 0.
    pub(super) cells: Box<[MaybeUninit<T>]>,
    pub(super) len: u32,
}

/// The mean number of entries per bucket at which a segment is full.
const MAX_BUCKET_MEAN: usize = 12;

/// The segment that a hash chooses, and the remaining bits.
#[inline(always)]
pub(super) fn split(hash: u64, bits: u32) -> (usize, u64) {
    if bits == 0 {
        (0, hash)
    } else {
        ((hash >> (64 - bits)) as usize, hash << bits)
    }
}

/// The byte of a hash that is kept as its tag. It is not among the bits that choose the bucket, and it is never 0.
#[inline(always)]
pub(super) fn tag(hash: u64) -> u8 {
    ((hash >> 32) as u8).max(1)
}

impl<T: Cell> Segment<T> {
    pub(super) fn with_buckets(buckets: usize) -> Self {
        let tags = vec![Tags::default(); buckets].into_boxed_slice();
        Segment { tags, cells: Box::new_uninit_slice(buckets * CELLS), len: 0 }
    }

    /// The number of buckets that `len` entries fill to 60 %; growing once by `GROWTH` makes room for twice as many.
    pub(super) fn buckets_for(len: usize) -> usize {
        len * 5 / (3 * CELLS) + 1
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.len as usize >= self.tags.len() * MAX_BUCKET_MEAN
    }

    #[inline(always)]
    pub(super) fn home_bucket(&self, rest: u64) -> usize {
        ((rest as u128 * self.tags.len() as u128) >> 64) as usize
    }

    #[inline(always)]
    pub(super) fn next_bucket(&self, bucket: usize) -> usize {
        if bucket + 1 == self.tags.len() {
            0
        } else {
            bucket + 1
        }
    }

    /// Place an entry in its home bucket or in the next one that has room; the segment must not be full.
    #[inline(always)]
    pub(super) fn put(&mut self, mut bucket: usize, hash: u64, cell: T) {
        let free = loop {
            if let Some(free) = self.tags[bucket].free() {
                break free;
            }
            self.tags[bucket].count_overflow();
            bucket = self.next_bucket(bucket);
        };
        self.write(bucket, free, hash, cell);
    }

    #[inline(always)]
    pub(super) fn write(&mut self, bucket: usize, at: usize, hash: u64, cell: T) {
        self.cells[bucket * CELLS + at].write(cell);
        self.tags[bucket].set(at, tag(hash));
        self.len += 1;
    }

    /// The entry of a cell whose tag is not 0.
    #[inline(always)]
    pub(super) fn cell(&self, at: usize) -> &T {
        debug_assert!(self.tags[at / CELLS].taken().any(|taken| taken == at % CELLS));
        // Safety: only `write` sets a tag, and it initialises the cell first.
        unsafe { self.cells[at].assume_init_ref() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let places = self.tags.iter().enumerate();
        places.flat_map(move |(bucket, tags)| tags.taken().map(move |at| self.cell(bucket * CELLS + at)))
    }

    pub(super) fn each(&self, mut call: impl FnMut(&T)) {
        for (bucket, tags) in self.tags.iter().enumerate() {
            for at in tags.taken() {
                call(self.cell(bucket * CELLS + at));
            }
        }
    }

    /// Copy all entries to empty segments (one, or the two halves of this one) that have room for them.
    pub(super) fn spill<const N: usize>(&self, mut to: [Self; N], seed: u64, bits: u32) -> [Self; N] {
        // Entries per bucket. Counting them apart is faster than reading back tags that were just written: a 16-byte load
        // has to wait for the single-byte stores before it.
        let mut counts = to.each_ref().map(|segment| vec![0u8; segment.tags.len()]);
        self.each(|cell| {
            let hash = cell.hash(seed);
            let (number, rest) = split(hash, bits);
            let (segment, counts) = (&mut to[number % N], &mut counts[number % N]);
            let mut bucket = segment.home_bucket(rest);
            while counts[bucket] as usize == CELLS {
                segment.tags[bucket].count_overflow();
                bucket = segment.next_bucket(bucket);
            }
            let at = counts[bucket] as usize;
            counts[bucket] += 1;
            segment.write(bucket, at, hash, *cell);
        });
        to
    }
}
