//! The slots (medium and group) of a publisher, what events say of its groups, and the plan that follows from both.

use super::log::SlotLog;
use super::Publisher;
use crate::groups::{has_too_many_groups, Attention, Group, Plan};
use crate::ids::{BlockId, Column, EngineHash, GroupId, MediumId, SizeNumber, SlotId};
use crate::limits::{MAX_BLOCK_SIZES, MAX_CHAIN_SIZES};
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
    /// Whether the medium is the device's memory.
    pub is_device: bool,
    pub log: SlotLog,
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
                    self.needs_plan = true;
                }
            }
        }
        slot
    }

    /// Add a slot that is used for the first time; `medium` is the stored form of its name.
    pub fn add_slot(&mut self, shared: &mut Shared, medium: &str, group: GroupId) -> SlotId {
        let slot = SlotId::at(self.slots.len());
        let is_device = medium == "GPU";
        let medium = shared.media.take(medium);
        let column = shared.columns.take(self.id, slot);
        let log = SlotLog::new(self.slots.is_empty());
        self.slots.push(Slot { medium, group, column, digest: 0, count: 0, is_device, log });
        if !self.groups.iter().any(|known| known.id == group) {
            self.groups.push(Group::new(group));
        }
        self.needs_plan = true;
        slot
    }

    /// The number of this block size; None if the group or the publisher uses too many sizes already.
    #[inline]
    pub(super) fn learn_size(&mut self, group: GroupId, size: u32) -> Option<SizeNumber> {
        let known = self.sizes.iter().position(|&known| known == size);
        let group = self.groups.iter_mut().find(|known| known.id == group)?;
        if group.sizes.contains(&size) {
            return known.map(SizeNumber::at);
        }
        if group.sizes.len() >= MAX_BLOCK_SIZES || (known.is_none() && self.sizes.len() >= MAX_CHAIN_SIZES) {
            return None;
        }
        group.sizes.push(size);
        group.sizes.sort_unstable();
        self.needs_plan = true;
        let number = known.unwrap_or(self.sizes.len());
        if known.is_none() {
            self.sizes.push(size);
        }
        Some(SizeNumber::at(number))
    }

    /// The number of the block size of a group's blocks, for events that do not tell; 0 if it is not known. A group
    /// that never had tokens may be the publisher's only group that had some, if one of the two has no number.
    pub(super) fn size_of(&self, group: GroupId) -> SizeNumber {
        let own = self.groups.iter().find(|known| known.id == group).and_then(Group::block_size);
        let size = own.or_else(|| {
            let mut owners = self.groups.iter().filter(|owner| !owner.sizes.is_empty());
            let owner = owners.next()?;
            let may_own = group == GroupId::NONE || owner.id == GroupId::NONE;
            if may_own && owners.next().is_none() {
                owner.block_size()
            } else {
                None
            }
        });
        SizeNumber::at(self.sizes.iter().position(|&known| Some(known) == size).unwrap_or(0))
    }

    /// Whether blocks of several sizes have to be told apart.
    #[inline(always)]
    pub(super) fn has_sizes(&self) -> bool {
        self.sizes.len() > 1
    }

    /// The block under which the slot holds a hash, in any block size; the one that counts comes first.
    #[inline(always)]
    pub(super) fn held(&self, hash: EngineHash, slot: SlotId) -> Option<BlockId> {
        if !self.has_sizes() {
            let id = hash.in_size(SizeNumber(0));
            return self.table.find(id, slot).0.map(|_| id);
        }
        let first = self.size_of(self.slots[slot.index()].group);
        let others = (0..self.sizes.len()).map(SizeNumber::at).filter(|&other| other != first);
        let mut ids = std::iter::once(first).chain(others).map(|size| hash.in_size(size));
        ids.find(|&id| self.table.find(id, slot).0.is_some())
    }

    /// Make the plan again after slots or groups changed.
    pub fn make_plan(&mut self, media: &Media) {
        self.needs_plan = false;
        self.work += (self.slots.len() + self.groups.len()) as u64;
        let slots: Vec<(MediumId, GroupId)> = self.slots.iter().map(|slot| (slot.medium, slot.group)).collect();
        self.plan = Plan::make(&slots, &self.groups, media);
    }

    /// Whether the publisher matches nothing because it has too many groups or block sizes.
    pub fn has_too_many_groups(&self) -> bool {
        has_too_many_groups(&self.groups)
    }
}
