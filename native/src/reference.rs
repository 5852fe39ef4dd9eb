//! The bare loop that benchmarks measure beside the core: the same decoder, the hash of each block, and two hash maps
//! (engine hash -> key, key -> holder). No parents, copies, tiers, orphans, digests, limits or removal.

use std::collections::HashMap;

use crate::hash::{mix, text_of, token_bytes};
use crate::holders::Ready;
use crate::wire::{Batch, Event, WireLimits};

/// Distinct blocks in the payloads.
pub fn two_maps<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Result<usize, &'static str> {
    let limits = WireLimits::default();
    let mut batch = Batch::default();
    let mut by_hash: HashMap<u64, u64, Ready> = HashMap::default();
    let mut by_key: HashMap<u64, u32, Ready> = HashMap::default();
    for data in payloads {
        batch.decode(data, &limits, |_| ())?;
        for event in &batch.events {
            let Event::Stored(event) = event else { continue };
            let mut key = 1;
            let tokens = event.tokens.of(&batch.tokens);
            let blocks = tokens.chunks_exact(event.block_size.max(1) as usize);
            for (hash, block) in event.hashes.of(&batch.hashes).iter().zip(blocks) {
                key = mix(key, text_of(token_bytes(block), 1));
                by_hash.insert(*hash, key);
                by_key.insert(key, 1);
            }
        }
    }
    Ok(by_key.len())
}
