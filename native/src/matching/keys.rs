//! The prefix keys of a prompt, computed as a walk asks for them.

use crate::hash::{local_hash, mix};
use crate::ids::PrefixKey;

/// Blocks that are hashed when the first key is asked for. A walk along a prompt without holders ends after one.
const FIRST_BLOCKS: usize = 4;
const BLOCKS: usize = 64;

/// The prefix keys of a prompt's full blocks, for one block size. They are computed a few blocks ahead of the walk, so
/// that a prompt without holders is not hashed as a whole.
pub(crate) struct PromptKeys<'a> {
    /// The tokens that are not hashed yet, as little-endian u32.
    tokens: &'a [u8],
    /// Bytes per block.
    width: usize,
    seed: u64,
    /// The key of the last block that was hashed.
    key: PrefixKey,
    is_first: bool,
    ready: [PrefixKey; BLOCKS],
    filled: usize,
    at: usize,
}

impl<'a> PromptKeys<'a> {
    /// Keys of `tokens` (little-endian u32) after the key `root`.
    pub fn new(tokens: &'a [u8], block_size: u32, root: PrefixKey, seed: u64) -> Self {
        let width = 4 * block_size as usize;
        PromptKeys { tokens, width, seed, key: root, is_first: true, ready: [PrefixKey(0); BLOCKS], filled: 0, at: 0 }
    }

    #[cold]
    #[inline(never)]
    fn fill(&mut self) {
        let most = if self.is_first { FIRST_BLOCKS } else { BLOCKS };
        self.is_first = false;
        let blocks = self.tokens.chunks_exact(self.width);
        self.filled = 0;
        for (ready, block) in self.ready[..most].iter_mut().zip(blocks) {
            self.key = mix(self.key, local_hash(block, self.seed));
            *ready = self.key;
            self.filled += 1;
        }
        self.tokens = &self.tokens[self.filled * self.width..];
        self.at = 0;
    }
}

impl Iterator for PromptKeys<'_> {
    type Item = PrefixKey;

    #[inline(always)]
    fn next(&mut self) -> Option<PrefixKey> {
        if self.at == self.filled {
            self.fill();
            if self.filled == 0 {
                return None;
            }
        }
        self.at += 1;
        Some(self.ready[self.at - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_chain_however_long_the_prompt() {
        let (block_size, root, seed) = (4, PrefixKey(9), 5);
        for blocks in [0, 1, FIRST_BLOCKS, FIRST_BLOCKS + 1, BLOCKS + FIRST_BLOCKS, 3 * BLOCKS + 7] {
            let tokens: Vec<u8> = (0..16 * blocks + 15).map(|at| (at * at / 7) as u8).collect();
            let mut key = root;
            let expected: Vec<PrefixKey> = tokens
                .chunks_exact(16)
                .map(|block| {
                    key = mix(key, local_hash(block, seed));
                    key
                })
                .collect();
            assert_eq!(PromptKeys::new(&tokens, block_size, root, seed).collect::<Vec<_>>(), expected);
            assert_eq!(expected.len(), blocks);
        }
    }
}
