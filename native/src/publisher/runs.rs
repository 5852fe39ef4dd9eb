//! Block transitions of an engine in the same process, whose hashes identify the blocks.
//!
//! Nothing has to be hashed: the prefix key of a block follows from its hash alone. Everything else is as for events
//! from the wire, and passes through the same functions.

use super::chain::Chain;
use super::{Applied, Publisher, Source};
use crate::hash::identity_key;
use crate::ids::{LocalHash, NodeId, SizeNumber};
use crate::shared::Shared;
use crate::wire::{Batch, Event, Stored};

impl Publisher {
    /// Apply the stored and removed events of a batch that `check` admitted, and add what they did to `applied`.
    pub fn apply_runs(&mut self, shared: &mut Shared, batch: &Batch, data: &[u8], applied: &mut Applied) {
        applied.payloads += 1;
        self.tentative.clear();
        for event in &batch.events {
            applied.events += 1;
            match event {
                Event::Stored(event) => self.store_run(shared, batch, event, data, applied),
                Event::Removed { hashes, medium, group } => {
                    let slot = self.slot(shared, *medium, *group, data);
                    self.remove(shared, batch, *hashes, slot, applied);
                }
                Event::Cleared { medium } => {
                    applied.cleared += self.clear(shared, medium.map(|span| span.text(data))) as u64;
                }
            }
        }
    }

    fn store_run(&mut self, shared: &mut Shared, batch: &Batch, event: &Stored, data: &[u8], applied: &mut Applied) {
        let slot = self.learn(shared, event, data);
        let Some(size) = self.learn_size(event.group, event.block_size) else { return };
        let mut local_hashes = std::mem::take(&mut shared.scratch.local_hashes);
        let mut prefix_keys = std::mem::take(&mut shared.scratch.prefix_keys);
        let hashes = event.hashes.of(&batch.hashes);
        local_hashes.clear();
        local_hashes.resize(hashes.len(), LocalHash(0)); // read only for blocks whose key is not known
        prefix_keys.clear();
        prefix_keys.extend(hashes.iter().map(|&hash| identity_key(hash)));
        let chain = Chain {
            event,
            slot,
            size,
            local_hashes: &local_hashes,
            prefix_keys: &prefix_keys,
            parent_key: event.parent.map(|parent| identity_key(parent.hash)),
            hint: self.hint_after(event, size),
        };
        self.store_blocks(shared, Source { model: "", batch, data }, chain, applied);
        shared.scratch.local_hashes = local_hashes;
        shared.scratch.prefix_keys = prefix_keys;
    }

    /// Where the node of the first block probably is.
    fn hint_after(&self, event: &Stored, size: SizeNumber) -> NodeId {
        let above = event.parent.and_then(|parent| self.table.find_any(parent.hash.in_size(size)));
        above.filter(|above| above.node != NodeId::ORPHAN).map_or(NodeId::NO_HINT, |above| above.node.next())
    }
}
