//! One publisher: what its events do. The semantics, and the reasons for them, are those of
//! `kvsync_indexer/core/publisher.py`; this is the same state laid out for speed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::groups::{Attention, Group, Media, Plan};
use crate::hash::{digest_term, keyed_text_of, mix, root_key, text_of, token_bytes};
use crate::nodes::Nodes;
use crate::segments::Place;
use crate::table::{Entry, Table, ORPHAN};
use crate::wire::{Batch, Event, ExtraReader, Stored, WireHash, WireLimits};

pub const MAX_COPIES: u16 = u16::MAX;
pub const MAX_SLOTS: usize = 64;
pub const MAX_BLOCK_SIZES: usize = 8;
pub const MAX_MEDIUM_CHARS: usize = 64;
/// Blocks ahead of the one being stored whose memory is asked for.
const AHEAD: usize = 12;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_publishers: usize,
    pub max_blocks: usize,
    pub max_orphans: usize,
    pub max_query_tokens: usize,
    pub wire: WireLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_publishers: 4096,
            max_blocks: 8_000_000,
            max_orphans: 262_144,
            max_query_tokens: 4 << 20,
            wire: WireLimits::default(),
        }
    }
}

/// What one payload did, in the order of Python's `Applied`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub events: u64,
    pub stored: u64,
    pub removed: u64,
    pub cleared: u64,
    pub orphans: u64,
    pub attached: u64,
    pub unknown_removed: u64,
    pub unknown_events: u64,
    pub refused: u64,
}

impl Applied {
    pub fn add(&mut self, more: &Applied) {
        self.events += more.events;
        self.stored += more.stored;
        self.removed += more.removed;
        self.cleared += more.cleared;
        self.orphans += more.orphans;
        self.attached += more.attached;
        self.unknown_removed += more.unknown_removed;
        self.unknown_events += more.unknown_events;
        self.refused += more.refused;
    }
}

/// What all publishers share.
pub struct Shared {
    pub nodes: Nodes,
    pub columns: Columns,
    pub media: Media,
    pub limits: Limits,
    pub seed: u64,
    texts: Vec<u64>,
    canonical: Vec<u8>,
}

impl Shared {
    pub fn new(limits: Limits, seed: u64) -> Self {
        Shared {
            nodes: Nodes::new(seed),
            columns: Columns::default(),
            media: Media::default(),
            limits,
            seed,
            texts: Vec::new(),
            canonical: Vec::new(),
        }
    }
}

/// Columns of the holder sets: (publisher, slot).
#[derive(Default)]
pub struct Columns {
    owners: Vec<(u32, u8)>,
    free: Vec<u32>,
}

impl Columns {
    fn take(&mut self, publisher: u32, slot: u8) -> u32 {
        match self.free.pop() {
            Some(column) => {
                self.owners[column as usize] = (publisher, slot);
                column
            }
            None => {
                self.owners.push((publisher, slot));
                (self.owners.len() - 1) as u32
            }
        }
    }

    #[inline(always)]
    pub fn owner(&self, column: u32) -> (u32, u8) {
        self.owners[column as usize]
    }
}

/// An engine hash outside the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spelled {
    Number(u64),
    Bytes(Box<[u8]>),
}

impl Spelled {
    pub fn key(&self) -> u64 {
        match self {
            Spelled::Number(key) => *key,
            Spelled::Bytes(bytes) => {
                bytes[bytes.len().saturating_sub(8)..].iter().fold(0, |key, &byte| key << 8 | byte as u64)
            }
        }
    }

    fn of(hash: &WireHash, data: &[u8]) -> Self {
        match hash.spelled {
            Some(span) => Spelled::Bytes(span.of(data).into()),
            None => Spelled::Number(hash.key),
        }
    }
}

/// A block whose own key is not known: it waits for its parent, or (neither given) for its tokens.
#[derive(Clone, Debug, Default)]
pub struct Orphan {
    pub text: u64,
    pub parent: Option<Spelled>,
}

pub struct Slot {
    pub medium: u16,
    pub group: i32,
    pub column: u32,
    pub digest: u128,
    pub count: u64,
}

pub struct Publisher {
    pub name: Arc<str>,
    pub model: u32,
    pub number: u32,
    pub slots: Vec<Slot>,
    pub groups: Vec<Group>,
    pub table: Table,
    pub orphans: HashMap<u64, Orphan>,
    pub spelled: HashMap<u64, Box<[u8]>>,
    pub conflicts: u64,
    pub refused: u64,
    plans: Vec<(u32, Option<Plan>)>,
    waiting: HashMap<u64, HashSet<u64>>,
    repeats: HashMap<(u32, u8), u32>,
    tentative: HashSet<(u64, u8)>,
    root: (u32, u64),
    windowed: bool,
}

/// The block an event is at: what its content is, as far as the event says.
struct Step {
    hash: WireHash,
    own: Option<u64>,
    tag: u32,
    text: u64,
    parent: Option<WireHash>,
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
            let medium = event.medium.map(|span| span.text(data));
            if self.slot(shared, medium, event.group).is_none() {
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

    /// Apply a checked batch.
    pub fn apply(&mut self, shared: &mut Shared, model: &str, batch: &Batch, data: &[u8]) -> Applied {
        let mut tally = Applied { unknown_events: batch.unknown_events as u64, ..Applied::default() };
        self.tentative.clear();
        for event in &batch.events {
            tally.events += 1;
            match event {
                Event::Stored(event) => self.store(shared, model, batch, event, data, &mut tally),
                Event::Removed { hashes, medium, group } => {
                    let slot = self.slot(shared, medium.map(|span| span.text(data)), *group);
                    self.remove(shared, &batch.hashes[hashes.clone()], slot, &mut tally);
                }
                Event::Cleared { medium } => {
                    tally.cleared += self.clear(shared, medium.map(|span| span.text(data))) as u64;
                }
            }
        }
        tally
    }

    fn store(
        &mut self,
        shared: &mut Shared,
        model: &str,
        batch: &Batch,
        event: &Stored,
        data: &[u8],
        tally: &mut Applied,
    ) {
        let slot = self.learn(shared, event, data);
        if let Some(parent) = event.parent {
            if !self.tentative.is_empty() && self.tentative.remove(&(parent.key, slot)) {
                // A copy gained in this batch was a report after all.
                if let (Some(place), _) = self.table.find(parent.key, slot) {
                    self.release(shared, parent.key, place, slot);
                }
            }
        }
        let size = event.block_size;
        let with_tokens = size > 0 && !event.tokens.is_empty();
        let readable = with_tokens && self.learn_size(shared, event.group, size);
        let count = event.hashes.len();
        if readable
            && count > 0
            && event.tokens.len() / size as usize == count
            && event.extras.is_none_or(|extras| extras.count as usize == count)
        {
            return self.store_chain(shared, model, batch, event, data, slot, tally);
        }
        let gains = with_tokens && event.parent.is_some();
        let mut spelled = &batch.spelled[event.spelled.clone()];
        for at in event.hashes.clone() {
            let hash = wire_hash(batch, at, &mut spelled);
            let (place, node) = self.table.find(hash.key, slot);
            if node.is_none() && !self.new_orphan(shared, hash.key, Orphan::default(), tally) {
                continue;
            }
            self.hold(shared, &hash, data, slot, place, node, node.unwrap_or(ORPHAN), gains, tally);
        }
    }

    /// An event whose tokens say what each of its hashes is.
    #[allow(clippy::too_many_arguments)]
    fn store_chain(
        &mut self,
        shared: &mut Shared,
        model: &str,
        batch: &Batch,
        event: &Stored,
        data: &[u8],
        slot: u8,
        tally: &mut Applied,
    ) {
        let mut texts = std::mem::take(&mut shared.texts);
        let root = self.texts(shared, model, batch, event, data, &mut texts);
        let hashes = &batch.hashes[event.hashes.clone()];
        let mut key = root;
        let mut near = u32::MAX;
        if let Some(parent) = event.parent {
            if let Some(above) = self.table.find_any(parent.key) {
                if above.node != ORPHAN {
                    key = Some(shared.nodes.get(above.node).key);
                    near = above.node + 1;
                }
            }
        }
        if let Some(mut key) = key {
            for (at, text) in texts.iter_mut().enumerate() {
                key = mix(key, *text);
                if at < AHEAD {
                    shared.nodes.prefetch(key);
                    self.table.prefetch(hashes[at]);
                }
                *text = key; // from here on these are the own keys
            }
        }
        let known = key.is_some();
        let single = event.parent.is_none() && hashes.len() == 1;
        let gains = event.parent.is_some() || single;
        let mut tag = if event.parent.is_none() { 0 } else { key.unwrap_or(0) as u32 };
        let mut parent = event.parent;
        let mut spelled = &batch.spelled[event.spelled.clone()];
        for at in 0..hashes.len() {
            if at + AHEAD < hashes.len() {
                self.table.prefetch(hashes[at + AHEAD]);
                shared.nodes.prefetch(texts[at + AHEAD]);
            }
            let hash = wire_hash(batch, event.hashes.start + at, &mut spelled);
            let mut own = if known { Some(texts[at]) } else { key.map(|key| mix(key, texts[at])) };
            let (place, node) = self.table.find(hash.key, slot);
            let node = match (node, own) {
                (None, Some(own)) => {
                    let made = shared.nodes.intern(own, tag, near);
                    near = made + 1;
                    self.insert_new(shared, &hash, data, slot, made, tally);
                    if !self.waiting.is_empty() {
                        self.adopt(shared, hash.key, own, tally);
                    }
                    None
                }
                (Some(node), Some(own)) if node != ORPHAN => {
                    if shared.nodes.get(node).key != own {
                        self.conflicts += 1;
                    }
                    near = node + 1;
                    Some(node)
                }
                (node, own) => self.know(shared, data, node, Step { hash, own, tag, text: texts[at], parent }, tally),
            };
            if let Some(node) = node {
                if self.hold(shared, &hash, data, slot, place, Some(node), node, gains, tally) && single {
                    self.tentative.insert((hash.key, slot));
                }
                if own.is_none() && node != ORPHAN {
                    own = Some(shared.nodes.get(node).key);
                }
            }
            key = own;
            tag = own.unwrap_or(0) as u32;
            parent = Some(hash);
        }
        shared.texts = texts;
    }

    /// Texts of the event's blocks; returns the root's key if the event starts a chain.
    fn texts(
        &mut self,
        shared: &mut Shared,
        model: &str,
        batch: &Batch,
        event: &Stored,
        data: &[u8],
        texts: &mut Vec<u64>,
    ) -> Option<u64> {
        let tokens = &batch.tokens[event.tokens.clone()];
        let blocks = tokens.chunks_exact(event.block_size as usize);
        let seed = shared.seed;
        let number = event.lora_id.map(|id| id.to_string());
        let lora = event.lora_name.map(|span| span.text(data)).or(number.as_deref());
        let first = event.parent.is_none();
        let mut salt = event.salt.map(|span| span.text(data)).filter(|&salt| lora != Some(salt));
        texts.clear();
        match event.extras.filter(|extras| extras.any) {
            None => texts.extend(blocks.map(|block| text_of(token_bytes(block), seed))),
            Some(extras) => {
                let mut reader = ExtraReader::new(data, &extras, &shared.limits.wire);
                for (at, block) in blocks.enumerate() {
                    let named = reader.next(lora, first && at == 0, &mut shared.canonical);
                    salt = salt.or(named);
                    let block = token_bytes(block);
                    texts.push(if shared.canonical.is_empty() {
                        text_of(block, seed)
                    } else {
                        keyed_text_of(block, &shared.canonical, seed)
                    });
                }
            }
        }
        if !first {
            return None;
        }
        if lora.is_none() && salt.is_none() {
            if self.root.0 != event.block_size {
                self.root = (event.block_size, root_key(model, None, None, event.block_size, seed));
            }
            return Some(self.root.1);
        }
        Some(root_key(model, lora, salt, event.block_size, seed))
    }

    /// The rare cases of a block's content: orphans. Returns its node, ORPHAN, or None if it is one orphan too many.
    fn know(
        &mut self,
        shared: &mut Shared,
        data: &[u8],
        node: Option<u32>,
        step: Step,
        tally: &mut Applied,
    ) -> Option<u32> {
        let hash = step.hash.key;
        match node {
            None => {
                let parent = step.parent.map(|parent| Spelled::of(&parent, data));
                let orphan = Orphan { text: step.text, parent };
                // `hold` must see that the hash is new: say so with a node of ORPHAN and no entry.
                self.new_orphan(shared, hash, orphan, tally).then_some(ORPHAN)
            }
            Some(ORPHAN) => {
                if let Some(own) = step.own {
                    let orphan = self.orphans.remove(&hash);
                    if let Some(above) = orphan.and_then(|orphan| orphan.parent) {
                        self.unwait(hash, above.key());
                    }
                    let node = self.attach(shared, hash, own, step.tag, tally);
                    self.adopt(shared, hash, own, tally);
                    return Some(node);
                }
                if let (Some(orphan), Some(parent)) = (self.orphans.get_mut(&hash), step.parent) {
                    if orphan.parent.is_none() {
                        *orphan = Orphan { text: step.text, parent: Some(Spelled::of(&parent, data)) };
                        self.waiting.entry(parent.key).or_default().insert(hash);
                    }
                }
                Some(ORPHAN)
            }
            attached => attached,
        }
    }

    /// Remember a hash as an orphan; false if that is one too many.
    fn new_orphan(&mut self, shared: &Shared, hash: u64, orphan: Orphan, tally: &mut Applied) -> bool {
        if self.orphans.len() >= shared.limits.max_orphans {
            self.refused += 1;
            tally.refused += 1;
            return false;
        }
        if let Some(parent) = &orphan.parent {
            self.waiting.entry(parent.key()).or_default().insert(hash);
        }
        self.orphans.insert(hash, orphan);
        tally.orphans += 1;
        true
    }

    fn unwait(&mut self, hash: u64, above: u64) {
        if let Some(siblings) = self.waiting.get_mut(&above) {
            siblings.remove(&hash);
            if siblings.is_empty() {
                self.waiting.remove(&above);
            }
        }
    }

    /// Give an orphan, already out of `orphans` and `waiting`, its own key.
    fn attach(&mut self, shared: &mut Shared, hash: u64, own: u64, tag: u32, tally: &mut Applied) -> u32 {
        let node = shared.nodes.intern(own, tag, u32::MAX);
        tally.attached += 1;
        for slot in self.table.rename(hash, node) {
            self.show(shared, node, slot);
        }
        node
    }

    /// Attach everything that waited for this hash, and what waited for that.
    fn adopt(&mut self, shared: &mut Shared, hash: u64, own: u64, tally: &mut Applied) {
        let mut todo = vec![(hash, own)];
        while let Some((above, key)) = todo.pop() {
            let Some(children) = self.waiting.remove(&above) else {
                continue;
            };
            for hash in children {
                if let Some(orphan) = self.orphans.remove(&hash) {
                    let own = mix(key, orphan.text);
                    self.attach(shared, hash, own, key as u32, tally);
                    todo.push((hash, own));
                }
            }
        }
    }

    /// Count a block in the slot; true if a copy was added to one that was there. `seen` is None for a new hash.
    #[allow(clippy::too_many_arguments)]
    #[inline]
    fn hold(
        &mut self,
        shared: &mut Shared,
        hash: &WireHash,
        data: &[u8],
        slot: u8,
        place: Option<Place>,
        seen: Option<u32>,
        node: u32,
        gains: bool,
        tally: &mut Applied,
    ) -> bool {
        if let Some(place) = place {
            tally.stored += 1;
            let entry = self.table.at(place);
            if gains && entry.copies < MAX_COPIES {
                entry.copies += 1;
                return true;
            }
            return false;
        }
        if seen.is_none_or(|seen| seen == ORPHAN) && self.table.find_any(hash.key).is_none() {
            self.insert_new(shared, hash, data, slot, node, tally);
        } else {
            self.insert(shared, hash.key, slot, node, tally);
        }
        false
    }

    #[inline(always)]
    fn insert_new(
        &mut self,
        shared: &mut Shared,
        hash: &WireHash,
        data: &[u8],
        slot: u8,
        node: u32,
        tally: &mut Applied,
    ) {
        if let Some(span) = hash.spelled {
            self.spelled.insert(hash.key, span.of(data).into());
        }
        self.insert(shared, hash.key, slot, node, tally);
    }

    #[inline(always)]
    fn insert(&mut self, shared: &mut Shared, hash: u64, slot: u8, node: u32, tally: &mut Applied) {
        tally.stored += 1;
        self.put(shared, Entry { hash, slot, node, copies: 1 });
    }

    #[inline(always)]
    fn put(&mut self, shared: &mut Shared, entry: Entry) {
        self.table.insert(entry);
        let held = &mut self.slots[entry.slot as usize];
        held.digest = held.digest.wrapping_add(digest_term(entry.hash));
        held.count += 1;
        if entry.node != ORPHAN {
            self.show(shared, entry.node, entry.slot);
        }
    }

    fn remove(&mut self, shared: &mut Shared, hashes: &[u64], slot: Option<u8>, tally: &mut Applied) {
        let Some(slot) = slot else {
            tally.unknown_removed += hashes.len() as u64;
            return;
        };
        for (at, &hash) in hashes.iter().enumerate() {
            if let Some(&later) = hashes.get(at + AHEAD) {
                self.table.prefetch(later);
            }
            let Some(place) = self.table.find(hash, slot).0 else {
                tally.unknown_removed += 1;
                continue;
            };
            tally.removed += 1;
            if !self.tentative.is_empty() {
                self.tentative.remove(&(hash, slot));
            }
            self.release(shared, hash, place, slot);
        }
    }

    #[inline]
    fn release(&mut self, shared: &mut Shared, hash: u64, place: Place, slot: u8) {
        let entry = self.table.at(place);
        if entry.copies > 1 {
            entry.copies -= 1;
        } else {
            self.drop_entry(shared, hash, place, slot);
        }
    }

    fn drop_entry(&mut self, shared: &mut Shared, hash: u64, place: Place, slot: u8) {
        let node = self.table.at(place).node;
        self.table.remove(place);
        let held = &mut self.slots[slot as usize];
        held.digest = held.digest.wrapping_sub(digest_term(hash));
        held.count -= 1;
        if node != ORPHAN {
            self.hide(shared, node, slot);
        }
        if self.slots.len() > 1 && self.table.find_any(hash).is_some() {
            return;
        }
        if !self.spelled.is_empty() {
            self.spelled.remove(&hash);
        }
        if node == ORPHAN {
            let orphan = self.orphans.remove(&hash);
            if let Some(above) = orphan.and_then(|orphan| orphan.parent) {
                self.unwait(hash, above.key());
            }
        }
    }

    fn clear(&mut self, shared: &mut Shared, medium: Option<&str>) -> usize {
        let before = self.table.len();
        self.tentative.clear();
        let Some(name) = medium else {
            self.empty(shared);
            return before;
        };
        let slots: Vec<bool> = self.slots.iter().map(|slot| shared.media.is(Some(name), slot.medium)).collect();
        let doomed: Vec<(u64, u8)> = self
            .table
            .iter()
            .filter(|entry| slots[entry.slot as usize])
            .map(|entry| (entry.hash, entry.slot))
            .collect();
        for (hash, slot) in doomed {
            if let (Some(place), _) = self.table.find(hash, slot) {
                self.drop_entry(shared, hash, place, slot);
            }
        }
        before - self.table.len()
    }

    // Residency by own key

    #[inline(always)]
    fn show(&mut self, shared: &mut Shared, node: u32, slot: u8) {
        let column = self.slots[slot as usize].column;
        if shared.nodes.shows(node, column) {
            *self.repeats.entry((node, slot)).or_insert(0) += 1;
        } else {
            shared.nodes.show(node, column);
        }
    }

    #[inline(always)]
    fn hide(&mut self, shared: &mut Shared, node: u32, slot: u8) {
        if !self.repeats.is_empty() {
            if let Some(more) = self.repeats.get_mut(&(node, slot)) {
                *more -= 1;
                if *more == 0 {
                    self.repeats.remove(&(node, slot));
                }
                return;
            }
        }
        shared.nodes.hide(node, self.slots[slot as usize].column);
    }

    // Slots and groups

    #[inline]
    fn slot(&self, shared: &Shared, medium: Option<&str>, group: i32) -> Option<u8> {
        self.slots
            .iter()
            .position(|slot| slot.group == group && shared.media.is(medium, slot.medium))
            .map(|at| at as u8)
    }

    #[inline]
    fn learn(&mut self, shared: &mut Shared, event: &Stored, data: &[u8]) -> u8 {
        let medium = event.medium.map(|span| span.text(data));
        let slot = match self.slot(shared, medium, event.group) {
            Some(slot) => slot,
            None => self.add_slot(shared, &Media::normal(medium), event.group),
        };
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
    fn learn_size(&mut self, shared: &Shared, group: i32, size: u32) -> bool {
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

    // Snapshots

    /// Put back rows of an attached block that is not there yet.
    pub fn restore_attached(
        &mut self,
        shared: &mut Shared,
        hash: u64,
        key: u64,
        tag: u32,
        held: &[(u8, u16)],
        near: u32,
    ) -> u32 {
        let node = shared.nodes.intern(key, tag, near);
        for &(slot, copies) in held {
            self.put(shared, Entry { hash, slot, node, copies });
        }
        node
    }

    /// Put back rows of an orphan that is not there yet.
    pub fn restore_orphan(&mut self, shared: &mut Shared, hash: u64, orphan: Orphan, held: &[(u8, u16)]) {
        if let Some(parent) = &orphan.parent {
            self.waiting.entry(parent.key()).or_default().insert(hash);
        }
        self.orphans.insert(hash, orphan);
        for &(slot, copies) in held {
            self.put(shared, Entry { hash, slot, node: ORPHAN, copies });
        }
    }
}

/// The hash at a place of the batch, with its bytes if it came as bytes.
#[inline(always)]
fn wire_hash(batch: &Batch, at: usize, spelled: &mut &[(usize, crate::reader::Span)]) -> WireHash {
    let mut hash = WireHash { key: batch.hashes[at], spelled: None };
    if let [first, rest @ ..] = *spelled {
        if first.0 == at {
            hash.spelled = Some(first.1);
            *spelled = rest;
        }
    }
    hash
}
