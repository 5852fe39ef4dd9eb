//! The bare loop that benchmarks run beside the core. It has the same decoder and computes the same hashes, but only
//! fills two hash maps (engine hash -> prefix key, prefix key -> holder): no parents, copies, tiers, orphans, digests,
//! limits or removals.

use std::collections::HashMap;

use crate::hash::{local_hash, mix, token_bytes};
use crate::identity::Identity;
use crate::ids::{EngineHash, PrefixKey};
use crate::wire::{Batch, Event, WireError, WireLimits};

/// Run the loop over payloads, and return how many distinct blocks they hold.
pub fn two_maps<'a>(payloads: impl Iterator<Item = &'a [u8]>) -> Result<usize, WireError> {
    let limits = WireLimits::default();
    let mut batch = Batch::default();
    let mut by_hash: HashMap<EngineHash, PrefixKey, Identity> = HashMap::default();
    let mut by_key: HashMap<PrefixKey, u32, Identity> = HashMap::default();
    for data in payloads {
        batch.decode(data, &limits, |_| ())?;
        for event in &batch.events {
            let Event::Stored(event) = event else { continue };
            let mut key = PrefixKey(1);
            let tokens = event.tokens.of(&batch.tokens);
            let blocks = tokens.chunks_exact(event.block_size.max(1) as usize);
            for (hash, block) in event.hashes.of(&batch.hashes).iter().zip(blocks) {
                key = mix(key, local_hash(token_bytes(block), 1));
                by_hash.insert(*hash, key);
                by_key.insert(key, 1);
            }
        }
    }
    Ok(by_key.len())
}
