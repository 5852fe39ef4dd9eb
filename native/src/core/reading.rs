//! What can be read of a core: dumps, digests and statistics.

use super::Core;
use crate::error::CoreError;
use crate::frozen::BlockRow;
use crate::ids::{GroupId, MediumId, NodeId};
use crate::publisher::Publisher;

/// The digest of the hashes in one slot. The fields are those of `DigestRow` in Python.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DigestRow {
    pub medium: MediumId,
    pub group: GroupId,
    pub count: u64,
    pub digest: u128,
}

/// Sizes and counters of a core or of one publisher. The fields are those of `CoreStats` in Python.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Stats {
    pub publishers: usize,
    pub blocks: usize,
    pub orphans: usize,
    pub keys: usize,
    pub bytes: usize,
    pub conflicts: u64,
    pub refused: u64,
    pub too_many_groups: usize,
    pub work: u64,
    /// Distinct sets of two and more holders; of a core only.
    pub holder_sets: usize,
}

impl Core {
    /// The digests of the publisher's slots that hold something, sorted by medium and group.
    pub fn digest(&self, name: &str) -> Result<Vec<DigestRow>, CoreError> {
        let publisher = self.registry.get(self.registry.find(name)?);
        let held = publisher.slots.iter().filter(|slot| slot.count > 0);
        let mut rows: Vec<DigestRow> = held
            .map(|slot| DigestRow { medium: slot.medium, group: slot.group, count: slot.count, digest: slot.digest })
            .collect();
        rows.sort_by_key(|row| (self.shared.media.name(row.medium), row.group));
        Ok(rows)
    }

    /// Every resident block, sorted by hash, medium and group.
    pub fn dump(&self, name: &str) -> Result<Vec<BlockRow>, CoreError> {
        Ok(self.frozen(self.registry.find(name)?).rows())
    }

    /// The publisher's resident blocks and its orphans, in constant time.
    pub fn sizes(&self, name: &str) -> Result<(usize, usize), CoreError> {
        let publisher = self.registry.get(self.registry.find(name)?);
        Ok((publisher.table.len(), publisher.orphans.len()))
    }

    /// Sizes and counters of one publisher, or of the whole core.
    pub fn stats(&self, name: Option<&str>) -> Result<Stats, CoreError> {
        let Some(name) = name else {
            let mut stats = Stats::default();
            self.registry.iter().for_each(|publisher| add(&mut stats, publisher));
            stats.keys = self.shared.nodes.len();
            stats.bytes += self.shared.nodes.bytes() + self.matcher.bytes();
            stats.holder_sets = self.shared.nodes.holders.distinct();
            return Ok(stats);
        };
        let publisher = self.registry.get(self.registry.find(name)?);
        let mut stats = Stats::default();
        add(&mut stats, publisher);
        let nodes = publisher.table.iter().map(|entry| entry.node).filter(|&node| node != NodeId::ORPHAN);
        let mut nodes: Vec<NodeId> = nodes.collect();
        nodes.sort_unstable();
        nodes.dedup();
        stats.keys = nodes.len();
        Ok(stats)
    }
}

fn add(stats: &mut Stats, publisher: &Publisher) {
    stats.publishers += 1;
    stats.blocks += publisher.table.len();
    stats.orphans += publisher.orphans.len();
    stats.bytes += publisher.bytes();
    stats.conflicts += publisher.conflicts;
    stats.refused += publisher.refused;
    stats.too_many_groups += usize::from(publisher.has_too_many_groups());
    stats.work += publisher.work;
}
