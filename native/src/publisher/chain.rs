//! Stored events: either a chain of blocks whose tokens say what they are, or hashes alone.

use std::borrow::Cow;

use super::orphans::{Content, Orphan};
use super::progress::{ChainPoint, StoredPoint};
use super::residency::Target;
use super::sparse::is_sparse;
use super::{Applied, Publisher, Source, AHEAD};
use crate::hash::{keyed_local_hash, local_hash, mix, root_key, token_bytes};
use crate::ids::{BlockId, EngineHash, LocalHash, NodeId, PrefixKey, SizeNumber, SlotId};
use crate::reader::Span;
use crate::shared::Shared;
use crate::wire::{Batch, ExtraReader, Stored, WireHash};

impl Publisher {
    /// Apply the stored event at position `at` of the batch further; true if all is done.
    pub(super) fn store(
        &mut self,
        shared: &mut Shared,
        source: Source,
        event: &Stored,
        at: usize,
        applied: &mut Applied,
    ) -> bool {
        let point = match self.cursor.stored {
            Some(point) => point,
            None => self.begin_store(shared, source, event, at),
        };
        match point {
            StoredPoint::Hashes { slot, number, adds_copy } => {
                self.cursor.stored = Some(point);
                self.store_hashes(shared, source, event, (slot, number, adds_copy), applied);
            }
            StoredPoint::Chain(chain) => {
                let mut local_hashes = std::mem::take(&mut shared.scratch.local_hashes);
                let mut prefix_keys = std::mem::take(&mut shared.scratch.prefix_keys);
                let mut blocks = Blocks { local_hashes: &mut local_hashes, prefix_keys: &mut prefix_keys };
                self.store_blocks(shared, source, (event, &mut blocks), chain, applied);
                shared.scratch.local_hashes = local_hashes;
                shared.scratch.prefix_keys = prefix_keys;
            }
        }
        self.cursor.at == event.hashes.len()
    }

    /// Find out what kind of stored event this is.
    #[inline(always)]
    fn begin_store(&mut self, shared: &mut Shared, source: Source, event: &Stored, at: usize) -> StoredPoint {
        let slot = self.learn(shared, event, source.data);
        if let Some(parent) = event.parent {
            if !self.tentative.is_empty() {
                self.take_back(shared, parent, slot);
            }
        }
        let (size, count) = (event.block_size as usize, event.hashes.len());
        let with_tokens = size > 0 && !event.tokens.is_empty();
        let number = if with_tokens { self.learn_size(event.group, event.block_size) } else { None };
        match number {
            Some(number)
                if count > 0
                    && (count * size..(count + 1) * size).contains(&event.tokens.len())
                    && event.extras.is_none_or(|extras| extras.count as usize == count) =>
            {
                StoredPoint::Chain(self.begin_chain(shared, source, event, (slot, number)))
            }
            number => {
                if number.is_some() && is_sparse(source, event, &shared.limits.wire) {
                    self.sparse.push(at as u32);
                }
                let number = number.unwrap_or_else(|| self.size_of(event.group));
                let adds_copy = if self.slots[slot.index()].is_device {
                    with_tokens && event.parent.is_some() && !self.last_copy_only
                } else {
                    let hashes = event.hashes.of(&source.batch.hashes);
                    with_tokens || hashes.iter().any(|&hash| self.held(hash, slot).is_none())
                };
                StoredPoint::Hashes { slot, number, adds_copy }
            }
        }
    }

    /// Remove a copy that this batch added, because a later event shows that it was a report of a resident block.
    fn take_back(&mut self, shared: &mut Shared, block: WireHash, slot: SlotId) {
        let sizes = (0..self.sizes.len().max(1)).map(SizeNumber::at);
        let ids = sizes.map(|size| block.hash.in_size(size));
        let Some(id) = ids.into_iter().find(|&id| self.tentative.contains(&(id, slot))) else { return };
        self.tentative.remove(&(id, slot));
        if let (Some(place), _) = self.table.find(id, slot) {
            self.release(shared, id, place, slot);
        }
    }

    /// Store an event that does not say for certain what its hashes are.
    fn store_hashes(
        &mut self,
        shared: &mut Shared,
        source: Source,
        event: &Stored,
        (slot, number, adds_copy): (SlotId, SizeNumber, bool),
        applied: &mut Applied,
    ) {
        let begin = self.cursor.at;
        let end = self.slice_end(begin, event.hashes.len());
        let first = event.hashes.start as usize;
        let mut raw_hashes = raw_hashes_from(source.batch, event, first + begin);
        for at in first + begin..first + end {
            if !self.attaching.is_empty() {
                self.left += (first + end - at) as i64;
                return;
            }
            self.cursor.at += 1;
            let wire = wire_hash(source.batch, at, &mut raw_hashes);
            let mut id = wire.hash.in_size(number);
            let (mut place, mut node) = self.table.find(id, slot);
            if place.is_none() && self.has_sizes() {
                if let Some(held) = self.held(wire.hash, slot) {
                    id = held;
                    (place, node) = self.table.find(id, slot);
                }
            }
            if place.is_some() {
                self.add_copy(place, adds_copy, applied);
                continue;
            }
            let known = node.is_some();
            if node.is_none() {
                node = self.recall(shared, id, applied);
            }
            if node.is_none() && !self.add_orphan(shared, id, Orphan::without_tokens(number), applied) {
                continue;
            }
            let target = Target { slot, size: number, node: node.unwrap_or(NodeId::ORPHAN) };
            self.insert(shared, &wire, source.data, target, known, applied);
        }
    }

    /// The node of a block that is not resident, with the content that it had when it was removed.
    fn recall(&mut self, shared: &mut Shared, id: BlockId, applied: &mut Applied) -> Option<NodeId> {
        let (key, parent_tag) = self.remembered.get(id)?;
        self.attach_waiting(shared, id, key, applied);
        Some(shared.nodes.intern(key, parent_tag, NodeId::NO_HINT))
    }

    /// Whether the slot holds the hash in the group's own block size and not in this one. If this block size is the
    /// group's own, a block of another size with this hash is dropped.
    #[cold]
    #[inline(never)]
    fn gives_way(&mut self, shared: &mut Shared, hash: EngineHash, slot: SlotId, number: SizeNumber) -> bool {
        let id = hash.in_size(number);
        if self.table.find(id, slot).0.is_some() {
            return false;
        }
        let Some(held) = self.held(hash, slot) else { return false };
        if number != self.size_of(self.slots[slot.index()].group) {
            return true;
        }
        self.tentative.remove(&(held, slot));
        if let (Some(place), _) = self.table.find(held, slot) {
            self.drop_entry(shared, held, place, slot, true);
        }
        false
    }

    /// Hash the blocks of an event whose tokens say what each of its hashes is.
    #[inline(always)]
    fn begin_chain(
        &mut self,
        shared: &mut Shared,
        source: Source,
        event: &Stored,
        (slot, size): (SlotId, SizeNumber),
    ) -> ChainPoint {
        let mut local_hashes = std::mem::take(&mut shared.scratch.local_hashes);
        let mut parent_key = self.hash_blocks(shared, source, event, &mut local_hashes);
        let mut hint = NodeId::NO_HINT;
        if let Some(above) = event.parent.and_then(|parent| self.table.find_any(parent.hash.in_size(size))) {
            if above.node != NodeId::ORPHAN {
                parent_key = Some(shared.nodes.get(above.node).key);
                hint = above.node.next();
            }
        }
        shared.scratch.prefix_keys.clear();
        if let Some(mut key) = parent_key {
            shared.scratch.prefix_keys.extend(local_hashes.iter().map(|&local| {
                key = mix(key, local);
                key
            }));
            shared.scratch.prefix_keys.iter().take(AHEAD).for_each(|&key| shared.nodes.prefetch(key));
        }
        shared.scratch.local_hashes = local_hashes;
        let parent_tag = if event.parent.is_none() { 0 } else { parent_key.map_or(0, PrefixKey::tag) };
        ChainPoint { slot, size, parent: event.parent, parent_key, parent_tag, hint }
    }

    pub(super) fn store_blocks(
        &mut self,
        shared: &mut Shared,
        source: Source,
        (event, blocks): (&Stored, &mut Blocks),
        chain: ChainPoint,
        applied: &mut Applied,
    ) {
        let is_device = self.slots[chain.slot.index()].is_device;
        let one_block_root = is_device && event.parent.is_none() && event.hashes.len() == 1;
        let adds_copy = !is_device || ((event.parent.is_some() || one_block_root) && !self.last_copy_only);
        let ChainPoint { mut parent, mut parent_key, mut parent_tag, mut hint, .. } = chain;
        let first = event.hashes.start as usize;
        let begin = self.cursor.at;
        let mut end = self.slice_end(begin, event.hashes.len());
        let mut raw_hashes = raw_hashes_from(source.batch, event, first + begin);
        for (at, &local) in blocks.local_hashes.iter().enumerate().take(end).skip(begin) {
            if !self.attaching.is_empty() {
                self.left += (end - at) as i64;
                end = at;
                break;
            }
            self.prefetch_ahead(shared, source.batch, (first, chain.size), blocks, at);
            let wire = wire_hash(source.batch, first + at, &mut raw_hashes);
            let mut key = match blocks.prefix_keys.get(at) {
                Some(&key) => Some(key),
                None => parent_key.map(|key| mix(key, local)),
            };
            if self.has_sizes() && self.gives_way(shared, wire.hash, chain.slot, chain.size) {
                applied.stored += 1;
                (parent, parent_key) = (Some(wire), key);
                parent_tag = key.map_or(0, PrefixKey::tag);
                continue;
            }
            let id = wire.hash.in_size(chain.size);
            let (place, seen) = self.table.find(id, chain.slot);
            let target = |node| Target { slot: chain.slot, size: chain.size, node };
            let node = match (seen, key) {
                (None, Some(key)) => {
                    let made = shared.nodes.intern(key, parent_tag, hint);
                    hint = made.next();
                    self.insert_new(shared, &wire, source.data, target(made), applied);
                    if !self.waiting.is_empty() {
                        self.attach_waiting(shared, id, key, applied);
                    }
                    None
                }
                (Some(node), Some(key)) if node != NodeId::ORPHAN => {
                    self.conflicts += u64::from(shared.nodes.get(node).key != key);
                    hint = node.next();
                    Some(node)
                }
                _ => {
                    let content = Content { size: chain.size, key, parent_tag, local, parent };
                    self.learn_content(shared, source.data, id, seen, content, applied)
                }
            };
            if let Some(node) = node {
                if place.is_none() {
                    self.insert(shared, &wire, source.data, target(node), seen.is_some(), applied);
                } else if self.add_copy(place, adds_copy, applied) && one_block_root {
                    self.tentative.insert((id, chain.slot));
                }
                if key.is_none() && node != NodeId::ORPHAN {
                    key = Some(shared.nodes.get(node).key);
                }
            }
            (parent, parent_key) = (Some(wire), key);
            parent_tag = key.map_or(0, PrefixKey::tag);
        }
        self.cursor.at = end;
        if end < event.hashes.len() {
            let point = ChainPoint { parent, parent_key, parent_tag, hint, ..chain };
            self.cursor.stored = Some(StoredPoint::Chain(point));
        }
    }

    /// Prefetch what the blocks after the one at `at` will need. The hashes looked up ahead may belong to later events,
    /// because a short event has nothing else to look ahead to.
    #[inline(always)]
    fn prefetch_ahead(
        &self,
        shared: &Shared,
        batch: &Batch,
        (first, size): (usize, SizeNumber),
        blocks: &Blocks,
        at: usize,
    ) {
        if let Some(&later) = batch.hashes.get(first + at + AHEAD) {
            self.table.prefetch(later.in_size(size));
        }
        if let Some(&later) = blocks.prefix_keys.get(at + AHEAD) {
            shared.nodes.prefetch(later);
        }
        if let Some(&soon) = blocks.prefix_keys.get(at + AHEAD / 2) {
            self.table.prefetch_free(batch.hashes[first + at + AHEAD / 2].in_size(size));
            shared.nodes.prefetch_free(soon);
        }
    }

    /// Put the local hashes of the event's blocks into `hashes`, and return the root key if the event starts a chain.
    fn hash_blocks(
        &mut self,
        shared: &mut Shared,
        source: Source,
        event: &Stored,
        hashes: &mut Vec<LocalHash>,
    ) -> Option<PrefixKey> {
        let (tokens, size) = (event.tokens.of(&source.batch.tokens), event.block_size as usize);
        let blocks = (0..event.hashes.len()).map(|at| token_bytes(&tokens[at * size..(at + 1) * size]));
        let seed = shared.seed;
        let name = lora_of(event, source.data);
        let lora = name.as_deref();
        let text = |span: Span| span.text(source.data);
        let starts_chain = event.parent.is_none();
        let mut salt = event.salt.map(text).filter(|&salt| lora != Some(salt));
        hashes.clear();
        match event.extras.filter(|extras| extras.any) {
            None => hashes.extend(blocks.map(|block| local_hash(block, seed))),
            Some(extras) => {
                let mut reader = ExtraReader::new(source.data, &extras, &shared.limits.wire);
                let extra = &mut shared.scratch.extra;
                for (at, block) in blocks.enumerate() {
                    let named = reader.next(lora, starts_chain && at == 0, extra);
                    salt = salt.or(named);
                    hashes.push(if extra.is_empty() {
                        local_hash(block, seed)
                    } else {
                        keyed_local_hash(block, extra, seed)
                    });
                }
            }
        }
        starts_chain.then(|| self.root(source.model, lora, salt, event.block_size, seed))
    }

    #[inline]
    fn root(&mut self, model: &str, lora: Option<&str>, salt: Option<&str>, size: u32, seed: u64) -> PrefixKey {
        if lora.is_some() || salt.is_some() {
            return root_key(model, lora, salt, size, seed);
        }
        if self.plain_root.0 != size {
            self.plain_root = (size, root_key(model, None, None, size, seed));
        }
        self.plain_root.1
    }
}

/// What the tokens of an event say of its blocks.
pub(super) struct Blocks<'a> {
    pub local_hashes: &'a mut Vec<LocalHash>,
    /// The keys of the blocks; empty if the key of what precedes them is not known.
    pub prefix_keys: &'a mut Vec<PrefixKey>,
}

/// The hashes of an event that came as bytes, from a position in the batch on.
#[inline(always)]
fn raw_hashes_from<'a>(batch: &'a Batch, event: &Stored, from: usize) -> &'a [(usize, Span)] {
    let all = event.raw_hashes.of(&batch.raw_hashes);
    &all[all.partition_point(|&(at, _)| at < from)..]
}

/// The LoRA adapter of the event: its name, or else its number in digits.
#[inline]
pub(super) fn lora_of<'a>(event: &Stored, data: &'a [u8]) -> Option<Cow<'a, str>> {
    match (event.lora_name, event.lora_id) {
        (Some(name), _) => Some(Cow::Borrowed(name.text(data))),
        (None, Some(id)) => Some(Cow::Owned(id.to_string())),
        (None, None) => None,
    }
}

/// The hash at a position of the batch; `raw_hashes` are those that have not been passed yet.
#[inline(always)]
fn wire_hash(batch: &Batch, at: usize, raw_hashes: &mut &[(usize, Span)]) -> WireHash {
    let mut wire = WireHash { hash: batch.hashes[at], raw: None };
    if let [first, rest @ ..] = *raw_hashes {
        if first.0 == at {
            wire.raw = Some(first.1);
            *raw_hashes = rest;
        }
    }
    wire
}
