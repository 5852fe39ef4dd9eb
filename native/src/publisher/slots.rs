//! The slots (medium and group) of a publisher, what events say of its groups, and the rules that follow from both.

use super::Publisher;
use crate::groups::{Attention, Group, ResidencyRule};
use crate::ids::{Column, GroupId, MediumId, SlotId};
use crate::limits::MAX_BLOCK_SIZES;
use crate::media::Media;
use crate::reader::Span;
use crate::shared::Shared;
use crate::wire::Stored;

/// A pair of medium and group that the publisher has used.
pub(crate) struct Slot {
    pub medium: MediumId,
    pub group: GroupId,
    pub column: Column,
    /// The digest of the hashes in the slot (`kvsync_events.SetDigest`).
    pub digest: u128,
    pub count: u64,
}

/// The slot of the last stored event. The events of one stream nearly always name the same one.
pub(super) struct RecentSlot {
    medium: u64,
    group: GroupId,
    slot: SlotId,
}

impl Default for RecentSlot {
    fn default() -> Self {
        RecentSlot { medium: NO_MEDIUM, group: GroupId(0), slot: SlotId(0) }
    }
}

const NO_MEDIUM: u64 = u64::MAX;
const TOO_LONG: u64 = u64::MAX - 1;

impl RecentSlot {
    /// The name of a medium as the event writes it, up to seven bytes long, in one word.
    #[inline(always)]
    fn word(medium: Option<Span>, data: &[u8]) -> u64 {
        let Some(span) = medium else { return 0 };
        let text = span.of(data);
        if text.len() > 7 {
            return TOO_LONG;
        }
        text.iter().fold(text.len() as u64 + 1, |word, &byte| word << 8 | byte as u64)
    }

    #[inline(always)]
    fn is(&self, medium: Option<Span>, group: GroupId, data: &[u8]) -> bool {
        Self::word(medium, data) == self.medium && group == self.group
    }

    fn set(&mut self, medium: Option<Span>, group: GroupId, data: &[u8], slot: SlotId) {
        let word = Self::word(medium, data);
        if word != TOO_LONG {
            *self = RecentSlot { medium: word, group, slot };
        }
    }
}

impl Publisher {
    /// The slot of a medium, as an event writes it, and a group; None if it was never used.
    #[inline(always)]
    pub(super) fn slot(&self, shared: &Shared, medium: Option<Span>, group: GroupId, data: &[u8]) -> Option<SlotId> {
        if self.recent_slot.is(medium, group, data) {
            return Some(self.recent_slot.slot);
        }
        self.search_slot(shared, medium.map(|span| span.text(data)), group)
    }

    #[inline(never)]
    fn search_slot(&self, shared: &Shared, medium: Option<&str>, group: GroupId) -> Option<SlotId> {
        let found = self.slots.iter().position(|slot| slot.group == group && shared.media.is(medium, slot.medium));
        found.map(SlotId::at)
    }

    /// The slot of a stored event; records what the event says of its group.
    #[inline(always)]
    pub(super) fn learn(&mut self, shared: &mut Shared, event: &Stored, data: &[u8]) -> SlotId {
        if event.kind.is_none() && event.window.is_none() && self.recent_slot.is(event.medium, event.group, data) {
            return self.recent_slot.slot;
        }
        self.learn_group(shared, event, data)
    }

    #[inline(never)]
    fn learn_group(&mut self, shared: &mut Shared, event: &Stored, data: &[u8]) -> SlotId {
        let slot = match self.slot(shared, event.medium, event.group, data) {
            Some(slot) => slot,
            None => {
                let medium = event.medium.map(|span| span.text(data));
                self.add_slot(shared, &Media::normal(medium), event.group)
            }
        };
        self.recent_slot.set(event.medium, event.group, data, slot);
        if event.kind.is_some() || event.window.is_some() {
            if let Some(group) = self.groups.iter_mut().find(|group| group.id == event.group) {
                let attention = event.kind.map_or(group.attention, |kind| Attention::of(kind.text(data)));
                let window = event.window.or(group.window);
                if (attention, window) != (group.attention, group.window) {
                    group.attention = attention;
                    group.window = window;
                    self.make_rules(shared);
                }
            }
        }
        slot
    }

    /// Add a slot that is used for the first time; `medium` is the stored form of its name.
    pub fn add_slot(&mut self, shared: &mut Shared, medium: &str, group: GroupId) -> SlotId {
        let slot = SlotId::at(self.slots.len());
        let medium = shared.media.intern(medium);
        let column = shared.columns.take(self.id, slot);
        self.slots.push(Slot { medium, group, column, digest: 0, count: 0 });
        if !self.groups.iter().any(|known| known.id == group) {
            self.groups.push(Group::new(group));
        }
        self.make_rules(shared);
        slot
    }

    /// Whether chains of this block size are kept for the group; false if the group uses too many sizes already.
    #[inline]
    pub(super) fn learn_size(&mut self, shared: &Shared, group: GroupId, size: u32) -> bool {
        let Some(group) = self.groups.iter_mut().find(|known| known.id == group) else {
            return false;
        };
        if group.sizes.contains(&size) {
            return true;
        }
        if group.sizes.len() >= MAX_BLOCK_SIZES {
            return false;
        }
        group.sizes.push(size);
        group.sizes.sort_unstable();
        self.make_rules(shared);
        true
    }

    /// Make the rules again after slots or groups changed.
    pub fn make_rules(&mut self, shared: &Shared) {
        let slots: Vec<(MediumId, GroupId)> = self.slots.iter().map(|slot| (slot.medium, slot.group)).collect();
        let mut sizes: Vec<u32> = self.groups.iter().flat_map(|group| group.sizes.iter().copied()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let rule = |size| ResidencyRule::make(&slots, &self.groups, &shared.media, size);
        self.rules = sizes.into_iter().map(|size| (size, rule(size))).collect();
        self.has_windows = self.rules.iter().flat_map(|rule| &rule.1).any(|rule| !rule.windows.is_empty());
    }

    /// The block sizes of the publisher's chains, ascending.
    pub fn block_sizes(&self) -> impl Iterator<Item = u32> + '_ {
        self.rules.iter().map(|rule| rule.0)
    }

    /// Whether any group is a sliding-window group.
    #[inline]
    pub fn has_window_groups(&self) -> bool {
        self.has_windows
    }

    /// How residency is read for chains of this block size; None if they cannot match.
    #[inline]
    pub fn rule(&self, size: u32) -> Option<&ResidencyRule> {
        self.rules.iter().find(|rule| rule.0 == size).and_then(|rule| rule.1.as_ref())
    }
}
