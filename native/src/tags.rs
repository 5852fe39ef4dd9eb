//! The tags of a group of cells: fourteen bytes, of which 0 says that the cell is empty, compared all at once.

/// Cells a group.
pub const SLOTS: usize = 14;
const ALL: u32 = (1 << SLOTS) - 1;
/// Where the number of entries is that passed the group because it was full. At the highest number it stays.
const PASSED: usize = 15;

#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub struct Tags([u8; 16]);

impl Tags {
    /// One bit for each byte that is `tag`.
    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    fn mask(&self, tag: u8) -> u32 {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi8};
        // Safety: SSE2 is part of x86-64, and the sixteen bytes are aligned to sixteen.
        unsafe {
            let all = _mm_load_si128(self.0.as_ptr().cast());
            _mm_movemask_epi8(_mm_cmpeq_epi8(all, _mm_set1_epi8(tag as i8))) as u32 & ALL
        }
    }

    #[inline(always)]
    #[cfg(not(target_arch = "x86_64"))]
    fn mask(&self, tag: u8) -> u32 {
        (0..SLOTS).fold(0, |mask, at| mask | ((self.0[at] == tag) as u32) << at)
    }

    /// Cells with this tag.
    #[inline(always)]
    pub fn with(&self, tag: u8) -> Bits {
        Bits(self.mask(tag))
    }

    /// Cells with an entry.
    #[inline(always)]
    pub fn taken(&self) -> Bits {
        Bits(!self.mask(0) & ALL)
    }

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

    /// Whether any entry that belongs here lies further on.
    #[inline(always)]
    pub fn passed(&self) -> bool {
        self.0[PASSED] != 0
    }

    #[inline(always)]
    pub fn pass(&mut self) {
        self.0[PASSED] = self.0[PASSED].saturating_add(1);
    }

    #[inline(always)]
    pub fn unpass(&mut self) {
        if self.0[PASSED] != u8::MAX {
            self.0[PASSED] -= 1;
        }
    }
}

/// Numbers of the bits that are set, ascending.
#[derive(Clone, Copy)]
pub struct Bits(u32);

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
