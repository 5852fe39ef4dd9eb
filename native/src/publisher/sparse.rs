//! Stored events that name fewer hashes than their tokens have blocks. The rules, and the reasons for them, are those of
//! `kvsync_indexer/core/sparse.py`.

use std::collections::HashMap;

use super::chain::lora_of;
use super::{Applied, Publisher, Source};
use crate::hash::{local_hash, mix, root_key, token_bytes};
use crate::ids::{BlockId, EngineHash, NodeId, PrefixKey, SizeNumber};
use crate::limits::MAX_SPARSE_BLOCKS;
use crate::shared::Shared;
use crate::wire::{Event, ExtraReader, Stored, WireLimits};

/// Whether the event names fewer hashes than its tokens have blocks, and no extra keys besides the LoRA name.
pub(super) fn is_sparse(source: Source, event: &Stored, limits: &WireLimits) -> bool {
    let (hashes, blocks) = (event.hashes.len(), event.tokens.len() / event.block_size as usize);
    if hashes == 0 || hashes >= blocks {
        return false;
    }
    let lora = lora_of(event, source.data);
    if event.salt.is_some_and(|salt| lora.as_deref() != Some(salt.text(source.data))) {
        return false;
    }
    let Some(extras) = event.extras.filter(|extras| extras.any) else { return true };
    let (mut reader, mut extra) = (ExtraReader::new(source.data, &extras, limits), Vec::new());
    (0..extras.count).all(|_| {
        reader.next(lora.as_deref(), false, &mut extra);
        extra.is_empty()
    })
}

impl Publisher {
    /// Attach the orphans among the hashes of the sparse events, as far as their tokens say what they are. True if all
    /// is done.
    pub(super) fn place_sparse(&mut self, shared: &mut Shared, source: Source, applied: &mut Applied) -> bool {
        while self.has_sizes() && self.finish_begun(shared, applied) {
            let Some(&at) = self.sparse.get(self.cursor.placed) else { return true };
            if self.left <= 0 {
                return false;
            }
            self.cursor.placed += 1;
            let Event::Stored(event) = &source.batch.events[at as usize] else { continue };
            let blocks = self.sizes.iter().map(|&size| event.tokens.len() / size as usize).sum::<usize>();
            self.left -= blocks as i64;
            self.cursor.placed_blocks += blocks;
            if self.cursor.placed_blocks > MAX_SPARSE_BLOCKS {
                return true;
            }
            let hashes = event.hashes.of(&source.batch.hashes);
            let Some(number) = self.sizes.iter().position(|&size| size == event.block_size) else { continue };
            let number = SizeNumber::at(number);
            if hashes.iter().any(|hash| self.is_orphan(hash.in_size(number))) {
                self.place(shared, source, event, number, applied);
            }
        }
        !self.has_sizes()
    }

    fn is_orphan(&self, id: BlockId) -> bool {
        self.table.find_any(id).is_some_and(|entry| entry.node == NodeId::ORPHAN)
    }

    /// The prefix key of a resident block, if it is known.
    fn key_of(&self, shared: &Shared, id: BlockId) -> Option<PrefixKey> {
        let entry = self.table.find_any(id).filter(|entry| entry.node != NodeId::ORPHAN)?;
        Some(shared.nodes.get(entry.node).key)
    }

    fn place(
        &mut self,
        shared: &mut Shared,
        source: Source,
        event: &Stored,
        number: SizeNumber,
        applied: &mut Applied,
    ) {
        let hashes = event.hashes.of(&source.batch.hashes);
        let own = self.chain(shared, source, event, number);
        let Some(places) = self.places(shared, source, event, hashes).filter(|_| !own.is_empty()) else { return };
        let base = event.parent.and_then(|parent| self.key_of(shared, parent.hash.in_size(number)));
        for (&hash, place) in hashes.iter().zip(places) {
            let (Some(place), id) = (place, hash.in_size(number)) else { continue };
            if self.is_orphan(id) {
                let parent = if place == 0 { base } else { Some(own[place - 1]) };
                self.remove_orphan(id);
                self.attach(shared, id, own[place], parent.map_or(0, PrefixKey::tag), applied);
                self.attach_waiting(shared, id, own[place], applied);
            }
        }
    }

    /// The prefix keys of the event's tokens in blocks of this size; empty if what precedes them is not known.
    fn chain(&self, shared: &Shared, source: Source, event: &Stored, number: SizeNumber) -> Vec<PrefixKey> {
        let size = self.sizes[number.index()];
        let base = match event.parent {
            Some(parent) => self.key_of(shared, parent.hash.in_size(number)),
            None => Some(root_key(source.model, lora_of(event, source.data).as_deref(), None, size, shared.seed)),
        };
        let Some(mut key) = base else { return Vec::new() };
        let blocks = event.tokens.of(&source.batch.tokens).chunks_exact(size as usize);
        let keys = blocks.map(|block| {
            key = mix(key, local_hash(token_bytes(block), shared.seed));
            key
        });
        keys.collect()
    }

    /// The block of the event's tokens that each hash stands for, if it is known; None for a contradiction.
    fn places(
        &self,
        shared: &Shared,
        source: Source,
        event: &Stored,
        hashes: &[EngineHash],
    ) -> Option<Vec<Option<usize>>> {
        let own_size = event.block_size as usize;
        let mut ends: Vec<(SizeNumber, HashMap<PrefixKey, usize>)> = Vec::new();
        for (at, &size) in self.sizes.iter().enumerate().filter(|(_, &size)| size != event.block_size) {
            let keys = self.chain(shared, source, event, SizeNumber::at(at));
            let ended = keys.into_iter().enumerate().map(|(at, key)| (key, (at + 1) * size as usize));
            let ended = ended.filter(|(_, end)| end % own_size == 0).map(|(key, end)| (key, end / own_size - 1));
            ends.push((SizeNumber::at(at), ended.collect()));
        }
        let mut places = vec![None; hashes.len()];
        let mut following: Option<usize> = None;
        for (at, &hash) in hashes.iter().enumerate().rev() {
            let anchor = ends.iter().find_map(|(number, ends)| {
                let key = self.key_of(shared, hash.in_size(*number))?;
                ends.get(&key).copied()
            });
            let place = match (anchor, following) {
                (Some(place), _) => place,
                (None, Some(next)) => next.checked_sub(1)?,
                (None, None) => continue,
            };
            if place < at || following.is_some_and(|next| place >= next) {
                return None;
            }
            places[at] = Some(place);
            following = Some(place);
        }
        Some(places)
    }
}
