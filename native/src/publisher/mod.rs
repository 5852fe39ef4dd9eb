//! One publisher, and what its events do to it.
//!
//! The semantics, and the reasons for them, are those of `kvsync_indexer/core/publisher.py`; this is the same state laid
//! out for speed. `chain` applies stored events, `residency` counts copies and removes them, `orphans` keeps the blocks
//! whose content is not known yet, `sparse` finds the content of masked blocks and `remembered` that of blocks that come
//! back, `runs` applies what an engine in the same process reports, `slots` keeps the pairs of medium and group with what events say of the groups and `log` their blocks, and
//! `admission` refuses batches that would exceed a hard limit.

mod admission;
mod applied;
mod chain;
mod log;
mod orphans;
mod progress;
mod raw_hash;
mod remembered;
mod residency;
mod runs;
mod slots;
mod sparse;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

pub use applied::Applied;
pub(crate) use orphans::Orphan;
use progress::{Clearing, Cursor};
pub use raw_hash::RawHash;
use remembered::Remembered;
use slots::RecentSlot;
pub(crate) use slots::Slot;

use crate::groups::{Group, Plan};
use crate::ids::{BlockId, ModelId, NodeId, PrefixKey, PublisherId, SlotId};
use crate::shared::Shared;
use crate::table::Table;
use crate::wire::{Batch, Event};

/// The state of one publisher. The fields that a match reads come first, so that they share a cache line.
#[repr(C, align(64))]
pub(crate) struct Publisher {
    pub name: Arc<str>,
    /// How residency is read.
    pub plan: Plan,
    pub model: ModelId,
    pub id: PublisherId,
    /// Slots or groups changed since the plan was made.
    pub needs_plan: bool,
    /// The publisher is among those whose plans are to be made.
    pub is_listed: bool,
    /// The publisher announces the removal of a device block only when its last copy goes.
    pub last_copy_only: bool,
    pub slots: Vec<Slot>,
    pub groups: Vec<Group>,
    /// Block sizes of chains; a position is the number of a size.
    pub sizes: Vec<u32>,
    pub table: Table,
    pub orphans: HashMap<BlockId, Orphan>,
    /// The bytes of resident hashes that came as bytes.
    pub raw_hashes: HashMap<BlockId, Box<[u8]>>,
    pub conflicts: u64,
    pub refused: u64,
    /// Entries that clears have read, and slots and groups that were read to make plans.
    pub work: u64,
    /// Orphans by the parent that they wait for.
    waiting: HashMap<BlockId, HashSet<BlockId>>,
    /// How many hashes beyond the first stand for the node in the slot.
    repeats: HashMap<(NodeId, SlotId), u32>,
    /// Copies that the batch being applied added, and that a later event of it may show to be reports.
    tentative: HashSet<(BlockId, SlotId)>,
    /// The positions of events in the batch being applied whose hashes may have to be placed among their tokens.
    sparse: Vec<u32>,
    remembered: Remembered,
    /// Where the application of the present payload stands, and what it has begun and not finished.
    cursor: Cursor,
    attaching: Vec<(Vec<BlockId>, PrefixKey)>,
    clearing: Option<Clearing>,
    /// Blocks that may still be worked on before others get the core.
    left: i64,
    /// The root key of chains without LoRA and salt, and the block size that it is for.
    plain_root: (u32, PrefixKey),
    recent_slot: RecentSlot,
}

/// A decoded payload, and the model of the publisher that sent it.
#[derive(Clone, Copy)]
struct Source<'a> {
    model: &'a str,
    batch: &'a Batch,
    data: &'a [u8],
}

/// How many blocks ahead of the current one memory is prefetched.
const AHEAD: usize = 12;

impl Publisher {
    pub fn new(name: Arc<str>, model: ModelId, id: PublisherId, seed: u64) -> Self {
        Publisher {
            name,
            plan: Plan::default(),
            model,
            id,
            needs_plan: false,
            is_listed: false,
            last_copy_only: false,
            slots: Vec::new(),
            groups: Vec::new(),
            sizes: Vec::new(),
            table: Table::new(seed),
            orphans: HashMap::new(),
            raw_hashes: HashMap::new(),
            conflicts: 0,
            refused: 0,
            work: 0,
            waiting: HashMap::new(),
            repeats: HashMap::new(),
            tentative: HashSet::new(),
            sparse: Vec::new(),
            remembered: Remembered::default(),
            cursor: Cursor::default(),
            attaching: Vec::new(),
            clearing: None,
            left: i64::MAX,
            plain_root: (0, PrefixKey(0)),
            recent_slot: RecentSlot::default(),
        }
    }

    /// Begin to apply a batch that `check` admitted.
    pub fn begin(&mut self) {
        if !self.tentative.is_empty() {
            self.tentative.clear();
        }
        self.sparse.clear();
        self.cursor = Cursor::default();
    }

    /// Apply the batch further, and add what that did to `applied`. False: about `left` blocks were worked on, and there
    /// is more to do. Nothing else may change the publisher before all is done.
    pub fn apply_more(
        &mut self,
        shared: &mut Shared,
        model: &str,
        (batch, data): (&Batch, &[u8]),
        left: &mut i64,
        applied: &mut Applied,
    ) -> bool {
        self.left = *left;
        let is_done = self.apply_while_left(shared, Source { model, batch, data }, applied);
        *left = self.left;
        if is_done {
            applied.payloads += 1;
            applied.unknown_events += batch.unknown_events as u64;
        }
        is_done
    }

    fn apply_while_left(&mut self, shared: &mut Shared, source: Source, applied: &mut Applied) -> bool {
        while self.finish_begun(shared, applied) {
            let at = self.cursor.event;
            let Some(event) = source.batch.events.get(at) else {
                return self.place_sparse(shared, source, applied);
            };
            if self.left <= 0 {
                return false;
            }
            let is_done = match event {
                Event::Stored(event) => self.store(shared, source, event, at, applied),
                Event::Removed { hashes, medium, group } => {
                    let slot = self.slot(shared, *medium, *group, source.data);
                    self.remove(shared, source.batch, *hashes, slot, applied)
                }
                Event::Cleared { medium } => self.clear(shared, medium.map(|span| span.text(source.data)), applied),
            };
            if is_done {
                applied.events += 1;
                self.cursor.next_event();
            } else if self.left <= 0 {
                return false;
            }
        }
        false
    }

    /// Drop everything, slots and groups included.
    pub fn forget(&mut self, shared: &mut Shared) {
        self.begin_forget();
        self.left = i64::MAX;
        self.clear_more(shared);
        for slot in self.slots.drain(..) {
            shared.columns.release(slot.column);
            shared.media.release(slot.medium);
        }
        self.groups.clear();
        self.sizes.clear();
        self.plan = Plan::default();
        self.needs_plan = false;
        self.remembered = Remembered::default();
        self.recent_slot = RecentSlot::default();
    }

    /// An estimate of the memory that the publisher takes, nodes not included.
    pub fn bytes(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.table.bytes()
            + self.orphans.capacity() * 64
            + self.raw_hashes.capacity() * 72
            + self.waiting.capacity() * 128
            + self.repeats.capacity() * 24
            + self.remembered.bytes()
            + self.slots.iter().map(|slot| slot.log.bytes()).sum::<usize>()
    }
}
