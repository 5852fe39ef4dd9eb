//! Stored events: a chain of blocks whose tokens say what they are, or hashes alone.

use super::orphans::{Orphan, Step};
use super::{Applied, Publisher, Shared};
use crate::hash::{keyed_text_of, mix, root_key, text_of, token_bytes};
use crate::reader::Span;
use crate::table::ORPHAN;
use crate::wire::{Batch, ExtraReader, Stored, WireHash};

/// Blocks ahead of the one being stored whose memory is asked for.
pub(super) const AHEAD: usize = 12;

/// A decoded payload, and the model of the publisher that sent it.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub model: &'a str,
    pub batch: &'a Batch,
    pub data: &'a [u8],
}

impl Publisher {
    pub(super) fn store(&mut self, shared: &mut Shared, from: Source, event: &Stored, tally: &mut Applied) {
        let slot = self.learn(shared, event, from.data);
        if let Some(parent) = event.parent {
            if !self.tentative.is_empty() && self.tentative.remove(&(parent.key, slot)) {
                // A copy gained in this batch was a report after all.
                if let (Some(place), _) = self.table.find(parent.key, slot) {
                    self.release(shared, parent.key, place, slot);
                }
            }
        }
        let (size, count) = (event.block_size as usize, event.hashes.len());
        let with_tokens = size > 0 && !event.tokens.is_empty();
        if with_tokens
            && self.learn_size(shared, event.group, event.block_size)
            && count > 0
            && (count * size..(count + 1) * size).contains(&event.tokens.len())
            && event.extras.is_none_or(|extras| extras.count as usize == count)
        {
            self.store_chain(shared, from, event, slot, tally);
        } else {
            let gains = with_tokens && event.parent.is_some();
            self.store_hashes(shared, from, event, slot, gains, tally);
        }
    }

    /// An event that does not say for certain what its hashes are.
    fn store_hashes(
        &mut self,
        shared: &mut Shared,
        from: Source,
        event: &Stored,
        slot: u8,
        gains: bool,
        tally: &mut Applied,
    ) {
        let mut spelled = event.spelled.of(&from.batch.spelled);
        for at in event.hashes.start as usize..event.hashes.end as usize {
            let hash = wire_hash(from.batch, at, &mut spelled);
            let (place, node) = self.table.find(hash.key, slot);
            if node.is_none() && !self.new_orphan(shared, hash.key, Orphan::default(), tally) {
                continue;
            }
            if place.is_some() {
                self.gain(place, gains, tally);
            } else {
                self.insert_row(shared, &hash, from.data, slot, node, node.unwrap_or(ORPHAN), tally);
            }
        }
    }

    /// An event whose tokens say what each of its hashes is.
    fn store_chain(&mut self, shared: &mut Shared, from: Source, event: &Stored, slot: u8, tally: &mut Applied) {
        let mut texts = std::mem::take(&mut shared.texts);
        let mut key = self.texts(shared, from, event, &mut texts);
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
            for text in texts.iter_mut() {
                key = mix(key, *text);
                *text = key; // from here on these are the own keys
            }
            texts.iter().take(AHEAD).for_each(|&key| shared.nodes.prefetch(key));
        }
        self.store_blocks(shared, from, event, slot, &texts, key, near, tally);
        shared.texts = texts;
    }

    /// The blocks of a chain one by one. `above` is the own key of what is before the first; if it is known, `texts` are
    /// the blocks' own keys already.
    #[allow(clippy::too_many_arguments)]
    fn store_blocks(
        &mut self,
        shared: &mut Shared,
        from: Source,
        event: &Stored,
        slot: u8,
        texts: &[u64],
        above: Option<u64>,
        mut near: u32,
        tally: &mut Applied,
    ) {
        let known = above.is_some();
        let single = event.parent.is_none() && texts.len() == 1;
        let gains = event.parent.is_some() || single;
        let mut tag = if event.parent.is_none() { 0 } else { above.unwrap_or(0) as u32 };
        let (mut key, mut parent) = (above, event.parent);
        let mut spelled = event.spelled.of(&from.batch.spelled);
        let first = event.hashes.start as usize;
        for at in 0..texts.len() {
            // Hashes of later events too: short ones have nothing else to look ahead to.
            if let Some(&later) = from.batch.hashes.get(first + at + AHEAD) {
                self.table.prefetch(later);
            }
            if let Some(&later) = texts.get(at + AHEAD) {
                shared.nodes.prefetch(later);
            }
            if let Some(&soon) = texts.get(at + AHEAD / 2) {
                self.table.prefetch_free(from.batch.hashes[first + at + AHEAD / 2]);
                shared.nodes.prefetch_free(soon);
            }
            let hash = wire_hash(from.batch, first + at, &mut spelled);
            let mut own = if known { Some(texts[at]) } else { key.map(|key| mix(key, texts[at])) };
            let (place, seen) = self.table.find(hash.key, slot);
            let node = match (seen, own) {
                (None, Some(own)) => {
                    let made = shared.nodes.intern(own, tag, near);
                    near = made + 1;
                    self.insert_new(shared, &hash, from.data, slot, made, tally);
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
                (node, own) => {
                    let step = Step { hash, own, tag, text: texts[at], parent };
                    self.know(shared, from.data, node, step, tally)
                }
            };
            if let Some(node) = node {
                if place.is_none() {
                    self.insert_row(shared, &hash, from.data, slot, seen, node, tally);
                } else if self.gain(place, gains, tally) && single {
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
    }

    /// Texts of the event's blocks; returns the root's key if the event starts a chain.
    fn texts(&mut self, shared: &mut Shared, from: Source, event: &Stored, texts: &mut Vec<u64>) -> Option<u64> {
        let (tokens, size) = (event.tokens.of(&from.batch.tokens), event.block_size as usize);
        let blocks = (0..event.hashes.len()).map(|at| token_bytes(&tokens[at * size..(at + 1) * size]));
        let seed = shared.seed;
        let number = event.lora_id.map(|id| id.to_string());
        let text = |span: Span| span.text(from.data);
        let lora = event.lora_name.map(text).or(number.as_deref());
        let first = event.parent.is_none();
        let mut salt = event.salt.map(text).filter(|&salt| lora != Some(salt));
        texts.clear();
        match event.extras.filter(|extras| extras.any) {
            None => texts.extend(blocks.map(|block| text_of(block, seed))),
            Some(extras) => {
                let mut reader = ExtraReader::new(from.data, &extras, &shared.limits.wire);
                for (at, block) in blocks.enumerate() {
                    let named = reader.next(lora, first && at == 0, &mut shared.canonical);
                    salt = salt.or(named);
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
                self.root = (event.block_size, root_key(from.model, None, None, event.block_size, seed));
            }
            return Some(self.root.1);
        }
        Some(root_key(from.model, lora, salt, event.block_size, seed))
    }
}

/// The hash at a place of the batch, with its bytes if it came as bytes.
#[inline(always)]
fn wire_hash(batch: &Batch, at: usize, spelled: &mut &[(usize, Span)]) -> WireHash {
    let mut hash = WireHash { key: batch.hashes[at], spelled: None };
    if let [first, rest @ ..] = *spelled {
        if first.0 == at {
            hash.spelled = Some(first.1);
            *spelled = rest;
        }
    }
    hash
}
