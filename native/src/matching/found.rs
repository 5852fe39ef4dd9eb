//! What a match finds of one publisher.

use crate::ids::{MediumId, PublisherId};
use crate::media::Media;

/// How much of a prompt one publisher holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The publisher.
    pub publisher: PublisherId,
    /// The length of the prefix that it holds.
    pub blocks: u32,
    /// Tokens per block.
    pub block_size: u32,
    /// In which tiers the blocks are.
    pub tiers: Tiers,
}

impl Found {
    /// The length of the prefix in tokens.
    #[inline]
    pub fn tokens(&self) -> u64 {
        u64::from(self.blocks) * u64::from(self.block_size)
    }
}

/// Blocks by medium. Usually there is only one, and then nothing is allocated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiers {
    first: Option<(MediumId, u32)>,
    more: Vec<(MediumId, u32)>,
}

impl Tiers {
    /// The media and their blocks.
    pub fn iter(&self) -> impl Iterator<Item = (MediumId, u32)> + '_ {
        self.first.iter().chain(&self.more).copied()
    }

    /// Count blocks of a medium.
    #[inline]
    pub(super) fn add(&mut self, medium: MediumId, blocks: u32) {
        match &mut self.first {
            None => self.first = Some((medium, blocks)),
            Some(first) if first.0 == medium => first.1 += blocks,
            _ => match self.more.iter_mut().find(|tier| tier.0 == medium) {
                Some(tier) => tier.1 += blocks,
                None => self.more.push((medium, blocks)),
            },
        }
    }

    /// The same, sorted by the distance of the media.
    #[inline]
    pub(super) fn nearest_first(self, media: &Media) -> Self {
        if self.more.is_empty() {
            return self;
        }
        let mut all: Vec<(MediumId, u32)> = self.iter().collect();
        all.sort_by_key(|tier| media.order(tier.0));
        let more = all.split_off(1);
        Tiers { first: Some(all[0]), more }
    }
}
