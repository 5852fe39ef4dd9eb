//! Cache groups of hybrid models, and how they decide which resident blocks count. The rules, and the reasons for them,
//! are those of `kvsync_indexer/core/groups.py`.

use crate::ids::{GroupId, MediumId};
use crate::limits::{MAX_MATCH_GROUPS, MAX_MATCH_SIZES};
use crate::media::Media;

/// How the blocks of a group take part in a match. The values are those of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attention {
    /// Every block of a match must be resident.
    Full = 0,
    /// Only the window before the end of a match must be resident.
    Window = 1,
    /// Only the block at the end of a match must be resident.
    Recurrent = 2,
}

impl Attention {
    /// The meaning of vLLM's `kv_cache_spec_kind`.
    pub fn of(kind: &str) -> Self {
        match kind {
            "full_attention" | "mla_attention" | "sink_full_attention" | "chunked_local_attention" => Attention::Full,
            "sliding_window" | "sliding_window_mla" => Attention::Window,
            _ => Attention::Recurrent,
        }
    }

    /// The inverse of `as u8`.
    pub fn from_number(number: u8) -> Option<Self> {
        [Attention::Full, Attention::Window, Attention::Recurrent].get(number as usize).copied()
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

    /// The block size that counts; None while no event carried tokens.
    pub fn block_size(&self) -> Option<u32> {
        self.sizes.last().copied()
    }
}

/// A sliding-window or recurrent group as a match sees it.
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
    /// One entry per sliding-window or recurrent group.
    pub windows: Vec<WindowRule>,
    /// The bit and the medium of each slot, nearest first.
    order: Vec<(u64, MediumId)>,
}

/// How the blocks of one publisher are matched.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// By block size, ascending; empty if nothing can match.
    pub rules: Vec<(u32, ResidencyRule)>,
    /// A match ends at a multiple of this many tokens.
    pub alignment: u64,
    /// The block size in which a match is reported: the largest of a full-attention group, or else of any group.
    pub block_size: u32,
}

/// Whether the groups exceed what one publisher may cost a match, so that it matches nothing.
pub fn has_too_many_groups(groups: &[Group]) -> bool {
    let with_tokens = groups.iter().filter(|group| !group.sizes.is_empty()).count();
    with_tokens > MAX_MATCH_GROUPS || block_sizes(groups).len() > MAX_MATCH_SIZES
}

/// The block sizes of the groups, ascending.
fn block_sizes(groups: &[Group]) -> Vec<u32> {
    let mut sizes: Vec<u32> = groups.iter().filter_map(Group::block_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl Plan {
    /// The plan of a publisher with these slots and groups.
    pub fn make(slots: &[(MediumId, GroupId)], groups: &[Group], media: &Media) -> Plan {
        if has_too_many_groups(groups) {
            return Plan::default();
        }
        let mut order: Vec<(u64, MediumId)> = slots.iter().enumerate().map(|(at, slot)| (1 << at, slot.0)).collect();
        order.sort_by(|one, two| media.order(one.1).cmp(&media.order(two.1)).then(one.0.cmp(&two.0)));
        let rules: Vec<(u32, ResidencyRule)> = block_sizes(groups)
            .into_iter()
            .map(|size| (size, ResidencyRule::make(slots, groups, order.clone(), size)))
            .collect();
        let full = rules.iter().rev().find(|(_, rule)| !rule.full.is_empty()).or(rules.last());
        let block_size = full.map_or(0, |(size, _)| *size);
        let alignment = rules.iter().fold(1, |all, (size, _)| least_common_multiple(all, *size as u64));
        Plan { rules, alignment, block_size }
    }

    /// The rule, if all groups have this block size.
    #[inline]
    pub fn only_rule(&self, block_size: u32) -> Option<&ResidencyRule> {
        match &self.rules[..] {
            [(size, rule)] if *size == block_size => Some(rule),
            _ => None,
        }
    }
}

/// The least common multiple; `u64::MAX` if it is too large, and then no prompt is long enough.
fn least_common_multiple(one: u64, two: u64) -> u64 {
    let (mut a, mut b) = (one, two);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    (one / a).saturating_mul(two)
}

impl ResidencyRule {
    fn make(
        slots: &[(MediumId, GroupId)],
        groups: &[Group],
        order: Vec<(u64, MediumId)>,
        block_size: u32,
    ) -> ResidencyRule {
        let with_tokens = groups.iter().filter(|group| !group.sizes.is_empty()).count();
        let mut rule = ResidencyRule { order, ..ResidencyRule::default() };
        for group in groups.iter().filter(|group| group.block_size() == Some(block_size)) {
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
                (Attention::Recurrent, _) => rule.windows.push(WindowRule { mask, needed: 1 }),
                _ => rule.full.push(mask),
            }
        }
        rule
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
