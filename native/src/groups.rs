//! Cache groups of hybrid models, and how they decide which resident blocks count. The rules, and the reasons for them,
//! are those of `kvsync_indexer/core/groups.py`.

use crate::ids::{GroupId, MediumId};
use crate::media::Media;

/// How the blocks of a group take part in a match. The values are those of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attention {
    /// Every block of a match must be resident.
    Full = 0,
    /// Only the window before the end of a match must be resident.
    Window = 1,
    /// The group is ignored.
    Other = 2,
}

impl Attention {
    /// The meaning of vLLM's `kv_cache_spec_kind`.
    pub fn of(kind: &str) -> Self {
        match kind {
            "full_attention" | "mla_attention" | "sink_full_attention" => Attention::Full,
            "sliding_window" | "sliding_window_mla" => Attention::Window,
            _ => Attention::Other,
        }
    }

    /// The inverse of `as u8`.
    pub fn from_number(number: u8) -> Option<Self> {
        [Attention::Full, Attention::Window, Attention::Other].get(number as usize).copied()
    }
}

/// What a publisher's events have said about one cache group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The engine's number of the group.
    pub id: GroupId,
    /// How its blocks take part in a match.
    pub attention: Attention,
    /// Tokens of the sliding window, if an event named them.
    pub window: Option<u64>,
    /// Block sizes of its events that carried tokens, ascending.
    pub sizes: Vec<u32>,
}

impl Group {
    /// A group of which nothing is known yet.
    pub fn new(id: GroupId) -> Self {
        Group { id, attention: Attention::Full, window: None, sizes: Vec::new() }
    }
}

/// A sliding-window group as a match sees it.
#[derive(Clone, Copy, Debug)]
pub struct WindowRule {
    /// The slots of the group, one bit each.
    pub mask: u64,
    /// Blocks that must be resident before the end of a match.
    pub needed: u32,
}

/// How residency masks are read for one publisher and one block size.
#[derive(Clone, Debug, Default)]
pub struct ResidencyRule {
    /// One mask per full-attention group: every block of a match needs a bit of each.
    pub full: Vec<u64>,
    /// One entry per sliding-window group.
    pub windows: Vec<WindowRule>,
    /// The bit and the medium of each slot, nearest first.
    order: Vec<(u64, MediumId)>,
}

impl ResidencyRule {
    /// The rule for chains of `block_size`, or None if no group of this size can match.
    pub fn make(
        slots: &[(MediumId, GroupId)],
        groups: &[Group],
        media: &Media,
        block_size: u32,
    ) -> Option<ResidencyRule> {
        let with_tokens = groups.iter().filter(|group| !group.sizes.is_empty()).count();
        let mut rule = ResidencyRule::default();
        for group in groups {
            if !group.sizes.contains(&block_size) || group.attention == Attention::Other {
                continue;
            }
            let mask = slots
                .iter()
                .enumerate()
                .filter(|(_, slot)| slot.1 == group.id || (with_tokens == 1 && may_belong(slot.1, group, groups)))
                .fold(0, |mask, (at, _)| mask | 1 << at);
            match (group.attention, group.window) {
                (Attention::Window, Some(window)) => {
                    let needed = window.saturating_sub(1).div_ceil(block_size as u64).max(1);
                    rule.windows.push(WindowRule { mask, needed: needed.min(u32::MAX as u64) as u32 });
                }
                _ => rule.full.push(mask),
            }
        }
        if rule.full.is_empty() && rule.windows.is_empty() {
            return None;
        }
        rule.order = slots.iter().enumerate().map(|(at, slot)| (1 << at, slot.0)).collect();
        rule.order.sort_by(|one, two| media.order(one.1).cmp(&media.order(two.1)).then(one.0.cmp(&two.0)));
        Some(rule)
    }

    /// Whether every full-attention group holds a block with this mask.
    #[inline]
    pub fn held(&self, mask: u64) -> bool {
        self.full.iter().all(|full| mask & full != 0)
    }

    /// The medium that a block is reported in: the nearest of each group, and the farthest of those. None if no group
    /// holds the block.
    #[inline]
    pub fn tier(&self, mask: u64) -> Option<MediumId> {
        if self.order.len() == 1 {
            return (mask != 0).then(|| self.order[0].1);
        }
        let mut farthest = None;
        let mut visit = |wanted: u64| {
            let nearest = self.order.iter().position(|(bit, _)| mask & wanted & bit != 0);
            farthest = farthest.max(nearest);
            nearest.is_some()
        };
        if self.full.is_empty() {
            self.windows.iter().for_each(|window| {
                visit(window.mask);
            });
        } else if !self.full.iter().all(|&wanted| visit(wanted)) {
            return None;
        }
        farthest.map(|at| self.order[at].1)
    }
}

/// Whether a slot of a group that never had tokens may hold blocks of `owner`: one of the two groups has no number.
fn may_belong(slot_group: GroupId, owner: &Group, groups: &[Group]) -> bool {
    let unnumbered = slot_group == GroupId::NONE || owner.id == GroupId::NONE;
    let without_tokens =
        |other: &Group| other.id == slot_group && other.sizes.is_empty() && other.attention == Attention::Full;
    unnumbered && groups.iter().any(without_tokens)
}
