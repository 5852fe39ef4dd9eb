//! One publisher: what its events do. The semantics, and the reasons for them, are those of
//! `kvsync_indexer/core/publisher.py`; this is the same state laid out for speed.

mod chain;
mod orphans;
mod residency;
mod shared;
mod slots;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chain::Source;
pub use orphans::{Orphan, Spelled};
pub use shared::{Applied, Columns, Limits, Shared, MAX_BLOCK_SIZES, MAX_COPIES, MAX_MEDIUM_CHARS, MAX_SLOTS};
pub use slots::Slot;
use slots::Usual;

use crate::groups::{Group, Media, Plan};
use crate::table::{Table, ORPHAN};
use crate::wire::{Batch, Event};

/// What a match reads of each publisher comes first, in one line of the cache.
#[repr(C, align(64))]
pub struct Publisher {
    pub name: Arc<str>,
    plans: Vec<(u32, Option<Plan>)>,
    pub model: u32,
    pub number: u32,
    windowed: bool,
    pub slots: Vec<Slot>,
    pub groups: Vec<Group>,
    pub table: Table,
    pub orphans: HashMap<u64, Orphan>,
    pub spelled: HashMap<u64, Box<[u8]>>,
    pub conflicts: u64,
    pub refused: u64,
    waiting: HashMap<u64, HashSet<u64>>,
    repeats: HashMap<(u32, u8), u32>,
    tentative: HashSet<(u64, u8)>,
    root: (u32, u64),
    usual: Usual,
}

impl Publisher {
    pub fn new(name: Arc<str>, model: u32, number: u32, seed: u64) -> Self {
        Publisher {
            name,
            model,
            number,
            slots: Vec::new(),
            groups: Vec::new(),
            table: Table::new(seed),
            orphans: HashMap::new(),
            spelled: HashMap::new(),
            conflicts: 0,
            refused: 0,
            plans: Vec::new(),
            waiting: HashMap::new(),
            repeats: HashMap::new(),
            tentative: HashSet::new(),
            root: (0, 0),
            windowed: false,
            usual: Usual::default(),
        }
    }

    /// Drop everything, slots and groups too; returns the blocks dropped.
    pub fn forget(&mut self, shared: &mut Shared) -> usize {
        let dropped = self.table.len();
        self.empty(shared);
        for slot in self.slots.drain(..) {
            shared.columns.free.push(slot.column);
        }
        self.groups.clear();
        self.plans.clear();
        self.windowed = false;
        self.usual = Usual::default();
        dropped
    }

    fn empty(&mut self, shared: &mut Shared) {
        let seed = shared.seed;
        let table = std::mem::replace(&mut self.table, Table::new(seed));
        for entry in table.iter() {
            if entry.node != ORPHAN {
                self.hide(shared, entry.node, entry.slot);
            }
        }
        self.orphans = HashMap::new();
        self.spelled = HashMap::new();
        self.waiting = HashMap::new();
        self.repeats = HashMap::new();
        self.tentative.clear();
        for slot in &mut self.slots {
            slot.digest = 0;
            slot.count = 0;
        }
    }

    pub fn bytes(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.table.bytes()
            + self.orphans.capacity() * 64
            + self.spelled.capacity() * 72
            + self.waiting.capacity() * 128
            + self.repeats.capacity() * 24
    }

    /// Whether applying the batch could pass a hard limit.
    pub fn check(&self, shared: &Shared, batch: &Batch, data: &[u8]) -> Result<(), String> {
        let mut stored = 0;
        let mut new_slots: Vec<(String, i32)> = Vec::new();
        for event in &batch.events {
            let Event::Stored(event) = event else {
                continue;
            };
            stored += event.hashes.len();
            if self.slot(shared, event.medium, event.group, data).is_none() {
                let medium = event.medium.map(|span| span.text(data));
                let name = Media::normal(medium);
                let chars = name.chars().count();
                if chars > MAX_MEDIUM_CHARS {
                    return Err(format!("medium of {chars} characters, over the limit of {MAX_MEDIUM_CHARS}"));
                }
                let pair = (name, event.group);
                if !new_slots.contains(&pair) {
                    new_slots.push(pair);
                }
                if self.slots.len() + new_slots.len() > MAX_SLOTS {
                    return Err(format!(
                        "{} uses {} pairs of medium and group and names more, over the limit of {MAX_SLOTS}",
                        self.name,
                        self.slots.len(),
                    ));
                }
            }
        }
        if self.table.len() + stored > shared.limits.max_blocks {
            return Err(format!(
                "{} holds {} blocks and stores {stored} more, over the limit of {}",
                self.name,
                self.table.len(),
                shared.limits.max_blocks,
            ));
        }
        Ok(())
    }

    /// Apply a checked batch, and add what it did to `tally`.
    pub fn apply(&mut self, shared: &mut Shared, model: &str, batch: &Batch, data: &[u8], tally: &mut Applied) {
        tally.unknown_events += batch.unknown_events as u64;
        if !self.tentative.is_empty() {
            self.tentative.clear();
        }
        let from = Source { model, batch, data };
        for event in &batch.events {
            tally.events += 1;
            match event {
                Event::Stored(event) => self.store(shared, from, event, tally),
                Event::Removed { hashes, medium, group } => {
                    let slot = self.slot(shared, *medium, *group, data);
                    self.remove(shared, batch, *hashes, slot, tally);
                }
                Event::Cleared { medium } => {
                    tally.cleared += self.clear(shared, medium.map(|span| span.text(data))) as u64;
                }
            }
        }
    }
}
