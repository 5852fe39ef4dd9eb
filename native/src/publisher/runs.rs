//! Block transitions of an engine in the same process, whose hashes identify the blocks.
//!
//! Nothing has to be hashed: the prefix key of a block follows from its hash alone. Everything else is as for events
//! from the wire, and passes through the same functions, in one slice.

use super::chain::Blocks;
use super::progress::ChainPoint;
use super::{Applied, Publisher, Source};
use crate::hash::identity_key;
use crate::ids::{LocalHash, NodeId, SizeNumber};
use crate::shared::Shared;
use crate::wire::{Batch, Event, Stored};

impl Publisher {
    /// Apply the stored and removed events of a batch that `check` admitted, and add what they did to `applied`.
    pub fn apply_runs(&mut self, shared: &mut Shared, batch: &Batch, data: &[u8], applied: &mut Applied) {
        self.begin();
        self.left = i64::MAX;
        applied.payloads += 1;
        for event in &batch.events {
            match event {
                Event::Stored(event) => self.store_run(shared, batch, event, data, applied),
                Event::Removed { hashes, medium, group } => {
                    let slot = self.slot(shared, *medium, *group, data);
                    self.remove(shared, batch, *hashes, slot, applied);
                }
                Event::Cleared { .. } => {} // runs have none
            }
            self.finish_begun(shared, applied);
            applied.events += 1;
            self.cursor.next_event();
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
        let parent_key = event.parent.map(|parent| identity_key(parent.hash));
        let chain = ChainPoint {
            slot,
            size,
            parent: event.parent,
            parent_key,
            parent_tag: parent_key.map_or(0, |key| key.tag()),
            hint: self.hint_after(event, size),
        };
        let mut blocks = Blocks { local_hashes: &mut local_hashes, prefix_keys: &mut prefix_keys };
        self.store_blocks(shared, Source { model: "", batch, data }, (event, &mut blocks), chain, applied);
        shared.scratch.local_hashes = local_hashes;
        shared.scratch.prefix_keys = prefix_keys;
    }

    /// Where the node of the first block probably is.
    fn hint_after(&self, event: &Stored, size: SizeNumber) -> NodeId {
        let above = event.parent.and_then(|parent| self.table.find_any(parent.hash.in_size(size)));
        above.filter(|above| above.node != NodeId::ORPHAN).map_or(NodeId::NO_HINT, |above| above.node.next())
    }
}
