//! Slots (medium and group) of a publisher, what events say of its groups, and how matches read them.

use super::{Publisher, Shared, MAX_BLOCK_SIZES};
use crate::groups::{Attention, Group, Media, Plan};
use crate::reader::Span;
use crate::wire::Stored;

pub struct Slot {
    pub medium: u16,
    pub group: i32,
    pub column: u32,
    pub digest: u128,
    pub count: u64,
}

/// The slot of the last stored event: events of one stream nearly always name the same.
pub(super) struct Usual {
    medium: u64,
    group: i32,
    slot: u8,
}

impl Default for Usual {
    fn default() -> Self {
        Usual { medium: UNKNOWN, group: 0, slot: 0 }
    }
}

const UNKNOWN: u64 = u64::MAX;
const TOO_LONG: u64 = u64::MAX - 1;

impl Usual {
    /// A medium as it is spelled, in one word.
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
    fn is(&self, medium: Option<Span>, group: i32, data: &[u8]) -> bool {
        Self::word(medium, data) == self.medium && group == self.group
    }

    fn set(&mut self, medium: Option<Span>, group: i32, data: &[u8], slot: u8) {
        let word = Self::word(medium, data);
        if word != TOO_LONG {
            *self = Usual { medium: word, group, slot };
        }
    }
}

impl Publisher {
    #[inline(always)]
    pub(super) fn slot(&self, shared: &Shared, medium: Option<Span>, group: i32, data: &[u8]) -> Option<u8> {
        if self.usual.is(medium, group, data) {
            return Some(self.usual.slot);
        }
        self.search_slot(shared, medium.map(|span| span.text(data)), group)
    }

    #[inline(never)]
    fn search_slot(&self, shared: &Shared, medium: Option<&str>, group: i32) -> Option<u8> {
        self.slots
            .iter()
            .position(|slot| slot.group == group && shared.media.is(medium, slot.medium))
            .map(|at| at as u8)
    }

    /// The slot of a stored event, and what it says of its group.
    #[inline(always)]
    pub(super) fn learn(&mut self, shared: &mut Shared, event: &Stored, data: &[u8]) -> u8 {
        if event.kind.is_none() && event.window.is_none() && self.usual.is(event.medium, event.group, data) {
            return self.usual.slot;
        }
        self.learn_slowly(shared, event, data)
    }

    #[inline(never)]
    fn learn_slowly(&mut self, shared: &mut Shared, event: &Stored, data: &[u8]) -> u8 {
        let slot = match self.slot(shared, event.medium, event.group, data) {
            Some(slot) => slot,
            None => {
                let medium = event.medium.map(|span| span.text(data));
                self.add_slot(shared, &Media::normal(medium), event.group)
            }
        };
        self.usual.set(event.medium, event.group, data, slot);
        if event.kind.is_some() || event.window.is_some() {
            if let Some(group) = self.groups.iter_mut().find(|group| group.name == event.group) {
                let attention = event.kind.map_or(group.attention, |kind| Attention::of(kind.text(data)));
                let window = event.window.or(group.window);
                if (attention, window) != (group.attention, group.window) {
                    group.attention = attention;
                    group.window = window;
                    self.replan(shared);
                }
            }
        }
        slot
    }

    pub fn add_slot(&mut self, shared: &mut Shared, medium: &str, group: i32) -> u8 {
        let slot = self.slots.len() as u8;
        let medium = shared.media.intern(medium);
        let column = shared.columns.take(self.number, slot);
        self.slots.push(Slot { medium, group, column, digest: 0, count: 0 });
        if !self.groups.iter().any(|known| known.name == group) {
            self.groups.push(Group { name: group, attention: Attention::Full, window: None, sizes: Vec::new() });
        }
        self.replan(shared);
        slot
    }

    #[inline]
    pub(super) fn learn_size(&mut self, shared: &Shared, group: i32, size: u32) -> bool {
        let Some(group) = self.groups.iter_mut().find(|known| known.name == group) else {
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
        self.replan(shared);
        true
    }

    pub fn replan(&mut self, shared: &Shared) {
        let slots: Vec<(u16, i32)> = self.slots.iter().map(|slot| (slot.medium, slot.group)).collect();
        let mut sizes: Vec<u32> = self.groups.iter().flat_map(|group| group.sizes.iter().copied()).collect();
        sizes.sort_unstable();
        sizes.dedup();
        self.plans =
            sizes.into_iter().map(|size| (size, Plan::make(&slots, &self.groups, &shared.media, size))).collect();
        self.windowed = self.plans.iter().flat_map(|plan| &plan.1).any(|plan| !plan.windows.is_empty());
    }

    /// Block sizes, ascending, and how to read their chains.
    pub fn plans(&self) -> &[(u32, Option<Plan>)] {
        &self.plans
    }

    /// Whether any group is a sliding-window one.
    #[inline]
    pub fn has_window_plans(&self) -> bool {
        self.windowed
    }

    #[inline]
    pub fn plan(&self, size: u32) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.0 == size).and_then(|plan| plan.1.as_ref())
    }
}
