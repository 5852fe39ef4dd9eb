//! The tags of one bucket of a table: a byte per cell, compared all at once with one vector instruction.
//!
//! A tag of 0 marks an empty cell. The sixteenth byte counts the entries whose home is this bucket or an earlier one and
//! that lie further on because the bucket was full. The count saturates, and then it is never decremented again.

/// Cells per bucket.
pub(crate) const CELLS: usize = 14;
const ALL: u32 = (1 << CELLS) - 1;
/// The byte that holds the overflow count.
const OVERFLOW: usize = 15;

/// The tags of a bucket and its overflow count.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub(crate) struct Tags([u8; 16]);

impl Tags {
    /// A mask with a bit for each cell whose tag is `tag`.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    fn mask(&self, tag: u8) -> u32 {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8};
        // Safety: every x86-64 processor has SSE2, and the type is 16 bytes long and aligned to 16.
        unsafe {
            let all = _mm_load_si128(self.0.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_set1_epi8(tag as i8))) as u32 & ALL
        }
    }

    #[inline(always)]
    #[cfg(not(target_arch = "x86_64"))]
    fn mask(&self, tag: u8) -> u32 {
        (0..CELLS).fold(0, |mask, at| mask | ((self.0[at] == tag) as u32) << at)
    }

    /// The cells with this tag.
    #[inline(always)]
    pub fn with(&self, tag: u8) -> Bits {
        Bits(self.mask(tag))
    }

    /// The cells that hold an entry.
    #[inline(always)]
    pub fn taken(&self) -> Bits {
        Bits(!self.mask(0) & ALL)
    }

    /// The first empty cell.
    #[inline(always)]
    pub fn free(&self) -> Option<usize> {
        match self.mask(0) {
            0 => None,
            mask => Some(mask.trailing_zeros() as usize),
        }
    }

    #[inline(always)]
    pub fn at(&self, at: usize) -> u8 {
        self.0[at]
    }

    #[inline(always)]
    pub fn set(&mut self, at: usize, tag: u8) {
        self.0[at] = tag;
    }

    /// Whether a search that does not find its entry here must go on to the next bucket.
    #[inline(always)]
    pub fn has_overflow(&self) -> bool {
        self.0[OVERFLOW] != 0
    }

    /// Count an entry that goes on to the next bucket.
    #[inline(always)]
    pub fn count_overflow(&mut self) {
        self.0[OVERFLOW] = self.0[OVERFLOW].saturating_add(1);
    }

    /// Take back `count_overflow` for an entry that is removed.
    #[inline(always)]
    pub fn uncount_overflow(&mut self) {
        if self.0[OVERFLOW] != u8::MAX {
            self.0[OVERFLOW] -= 1;
        }
    }
}

/// The positions of the bits that are set, ascending.
#[derive(Clone, Copy)]
pub(crate) struct Bits(u32);

impl Iterator for Bits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let at = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(at)
    }
}
