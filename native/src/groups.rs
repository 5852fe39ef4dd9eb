//! Cache groups and tiers: how residency masks are read. The rules are those of `kvsync_indexer/core/groups.py`.

use std::sync::Arc;

/// How a group's blocks take part in a match; the values are those of the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attention {
    Full = 0,
    Window = 1,
    Other = 2,
}

impl Attention {
    /// vLLM's `kv_cache_spec_kind`.
    pub fn of(kind: &str) -> Self {
        match kind {
            "full_attention" | "mla_attention" | "sink_full_attention" => Attention::Full,
            "sliding_window" | "sliding_window_mla" => Attention::Window,
            _ => Attention::Other,
        }
    }

    pub fn from_number(number: u8) -> Option<Self> {
        [Attention::Full, Attention::Window, Attention::Other].get(number as usize).copied()
    }
}

/// What was learnt about one cache group; `name` -1 is no group.
#[derive(Clone, Debug)]
pub struct Group {
    pub name: i32,
    pub attention: Attention,
    pub window: Option<u64>,
    /// Block sizes of its events that had tokens, ascending.
    pub sizes: Vec<u32>,
}

/// Names of tiers, shared by all publishers.
#[derive(Default)]
pub struct Media {
    names: Arc<Vec<Arc<str>>>,
}

impl Media {
    /// Upper case; no name is the device.
    pub fn normal(medium: Option<&str>) -> String {
        match medium {
            None => "GPU".to_owned(),
            Some(name) if name.is_ascii() => name.to_ascii_uppercase(),
            Some(name) => name.to_owned(),
        }
    }

    /// Whether `medium` as an event spells it is this medium.
    #[inline]
    pub fn is(&self, medium: Option<&str>, number: u16) -> bool {
        let name = self.name(number);
        match medium {
            None => name == "GPU",
            Some(other) if other.is_ascii() => name.eq_ignore_ascii_case(other),
            Some(other) => name == other,
        }
    }

    pub fn intern(&mut self, name: &str) -> u16 {
        if let Some(at) = self.names.iter().position(|known| **known == *name) {
            return at as u16;
        }
        Arc::make_mut(&mut self.names).push(name.into());
        (self.names.len() - 1) as u16
    }

    pub fn name(&self, number: u16) -> &str {
        &self.names[number as usize]
    }

    /// All names by number, as of now.
    pub fn names(&self) -> Arc<Vec<Arc<str>>> {
        Arc::clone(&self.names)
    }

    /// Sorts nearest first.
    pub fn order(&self, number: u16) -> (u8, &str) {
        let name = self.name(number);
        let rank = match name {
            "GPU" => 0,
            "CPU" | "CPU_PINNED" => 1,
            "DISK" | "STORAGE" => 2,
            _ => 3,
        };
        (rank, name)
    }
}

/// How to read residency masks for one publisher and block size.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// One mask a full-attention group: every block of a match needs a bit of each.
    pub full: Vec<u64>,
    /// (mask, blocks needed before the end) a sliding-window group.
    pub windows: Vec<(u64, u32)>,
    /// (slot's bit, medium), nearest first.
    order: Vec<(u64, u16)>,
}

impl Plan {
    /// The plan for chains of this block size; None if nothing of it can match. `slots` are (medium, group).
    pub fn make(slots: &[(u16, i32)], groups: &[Group], media: &Media, block_size: u32) -> Option<Plan> {
        let with_tokens = groups.iter().filter(|group| !group.sizes.is_empty()).count();
        let mut plan = Plan::default();
        for group in groups {
            if !group.sizes.contains(&block_size) || group.attention == Attention::Other {
                continue;
            }
            let mut mask = 0;
            for (at, slot) in slots.iter().enumerate() {
                let ownerless = || {
                    with_tokens == 1
                        && (slot.1 < 0 || group.name < 0)
                        && groups.iter().any(|other| {
                            other.name == slot.1 && other.sizes.is_empty() && other.attention == Attention::Full
                        })
                };
                if slot.1 == group.name || ownerless() {
                    mask |= 1 << at;
                }
            }
            match (group.attention, group.window) {
                (Attention::Window, Some(window)) => {
                    let needed = window.saturating_sub(1).div_ceil(block_size as u64).max(1);
                    plan.windows.push((mask, needed.min(u32::MAX as u64) as u32));
                }
                _ => plan.full.push(mask),
            }
        }
        if plan.full.is_empty() && plan.windows.is_empty() {
            return None;
        }
        plan.order = slots.iter().enumerate().map(|(at, slot)| (1 << at, slot.0)).collect();
        plan.order.sort_by(|one, two| media.order(one.1).cmp(&media.order(two.1)).then(one.0.cmp(&two.0)));
        Some(plan)
    }

    #[inline]
    pub fn held(&self, mask: u64) -> bool {
        self.full.iter().all(|full| mask & full != 0)
    }

    /// The medium of a block: the nearest of each group, the farthest of those. None if no group holds it.
    #[inline]
    pub fn tier(&self, mask: u64) -> Option<u16> {
        if self.order.len() == 1 {
            return (mask != 0).then(|| self.order[0].1);
        }
        let mut worst = None;
        let mut visit = |wanted: u64| {
            let place = self.order.iter().position(|(bit, _)| mask & wanted & bit != 0);
            worst = worst.max(place);
            place.is_some()
        };
        if self.full.is_empty() {
            self.windows.iter().for_each(|&(wanted, _)| {
                visit(wanted);
            });
        } else if !self.full.iter().all(|&wanted| visit(wanted)) {
            return None;
        }
        worst.map(|place| self.order[place].1)
    }
}
