//! A copy of one publisher at one moment, from which dumps and snapshots are written without the core.
//!
//! Copying takes the core for short slices, between which queries are answered. Whoever copies in slices keeps others
//! from changing the publisher meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use crate::core::Core;
use crate::groups::Group;
use crate::ids::{BlockId, EngineHash, GroupId, MediumId, NodeId, PrefixKey, PublisherId, SizeNumber};
use crate::publisher::{Orphan, RawHash};

/// The parts of a publisher's table that one slice copies: about 16,000 entries.
const SLICE: usize = 8;

/// One resident block of a publisher in one slot. The fields are those of `BlockRow` in Python.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct BlockRow {
    pub hash: RawHash,
    pub parent: Option<RawHash>,
    pub medium: MediumId,
    pub group: GroupId,
    pub copies: u16,
    /// None for a block that is not attached.
    pub key: Option<PrefixKey>,
}

/// One entry of the publisher's table with the content of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FrozenEntry {
    pub hash: EngineHash,
    pub size: SizeNumber,
    /// The position of the slot in `Frozen::slots`.
    pub slot: u8,
    pub copies: u16,
    pub parent_tag: u32,
    /// None for an orphan.
    pub key: Option<PrefixKey>,
}

/// A slot, as snapshots list it.
pub(crate) struct FrozenSlot {
    pub name: Arc<str>,
    pub medium: MediumId,
    pub group: GroupId,
}

/// The copy.
pub(crate) struct Frozen {
    pub name: Arc<str>,
    pub model: String,
    /// Sorted by id.
    pub groups: Vec<Group>,
    pub sizes: Vec<u32>,
    /// Sorted by the medium's name and the group.
    pub slots: Vec<FrozenSlot>,
    /// Sorted by hash, block size and slot once the copy is complete.
    pub entries: Vec<FrozenEntry>,
    pub raw_hashes: HashMap<BlockId, Box<[u8]>>,
    pub orphans: HashMap<BlockId, Orphan>,
    /// The position in `slots` of each slot of the publisher.
    positions: Vec<u8>,
    id: PublisherId,
    next: usize,
}

impl Core {
    /// Begin a copy of a publisher.
    pub(crate) fn freeze(&self, id: PublisherId) -> Frozen {
        let (publisher, media) = (self.registry.get(id), &self.shared.media);
        let mut groups = publisher.groups.clone();
        groups.sort_by_key(|group| group.id);
        let mut order: Vec<usize> = (0..publisher.slots.len()).collect();
        order.sort_by_key(|&at| (media.name(publisher.slots[at].medium), publisher.slots[at].group));
        let mut positions = vec![0; order.len()];
        order.iter().enumerate().for_each(|(position, &slot)| positions[slot] = position as u8);
        let names = media.names();
        let slot = |&at: &usize| {
            let slot = &publisher.slots[at];
            FrozenSlot { name: Arc::clone(&names[slot.medium.index()]), medium: slot.medium, group: slot.group }
        };
        Frozen {
            name: Arc::clone(&publisher.name),
            model: self.registry.model_name(publisher.model).to_owned(),
            groups,
            sizes: publisher.sizes.clone(),
            slots: order.iter().map(slot).collect(),
            entries: Vec::with_capacity(publisher.table.len()),
            raw_hashes: HashMap::new(),
            orphans: HashMap::new(),
            positions,
            id,
            next: 0,
        }
    }

    /// Copy the next slice; false if it was the last one.
    pub(crate) fn freeze_more(&self, frozen: &mut Frozen) -> bool {
        let (publisher, nodes) = (self.registry.get(frozen.id), &self.shared.nodes);
        let part = frozen.next..frozen.next + SLICE;
        frozen.next = part.end;
        for entry in publisher.table.iter_part(part) {
            let node = (entry.node != NodeId::ORPHAN).then(|| nodes.get(entry.node));
            if node.is_none() {
                if let Some(orphan) = publisher.orphans.get(&entry.id) {
                    frozen.orphans.insert(entry.id, orphan.clone());
                }
            }
            if !publisher.raw_hashes.is_empty() {
                if let Some(bytes) = publisher.raw_hashes.get(&entry.id) {
                    frozen.raw_hashes.insert(entry.id, bytes.clone());
                }
            }
            frozen.entries.push(FrozenEntry {
                hash: entry.id.hash(entry.size),
                size: entry.size,
                slot: frozen.positions[entry.slot.index()],
                copies: entry.copies,
                parent_tag: node.map_or(0, |node| node.parent_tag),
                key: node.map(|node| node.key),
            });
        }
        frozen.next < publisher.table.parts()
    }

    /// A complete copy.
    pub(crate) fn frozen(&self, id: PublisherId) -> Frozen {
        let mut frozen = self.freeze(id);
        while self.freeze_more(&mut frozen) {}
        frozen.complete();
        frozen
    }
}

impl Frozen {
    /// Sort the entries, after the last slice.
    pub fn complete(&mut self) {
        self.entries.sort_unstable();
    }

    /// The rows of a dump, sorted by hash, medium and group.
    pub fn rows(mut self) -> Vec<BlockRow> {
        let by_tag = self.hashes_by_tag();
        self.entries.sort_by_key(|entry| (entry.hash, entry.slot));
        let row = |entry: &FrozenEntry| {
            let parent = if entry.key.is_some() {
                let above = (entry.parent_tag != 0).then(|| by_tag.get(&entry.parent_tag)).flatten();
                above.map(|&(hash, size)| self.raw_hash(hash, size))
            } else {
                self.orphans.get(&entry.hash.in_size(entry.size)).and_then(|orphan| orphan.parent.clone())
            };
            let slot = &self.slots[entry.slot as usize];
            BlockRow {
                hash: self.raw_hash(entry.hash, entry.size),
                parent,
                medium: slot.medium,
                group: slot.group,
                copies: entry.copies,
                key: entry.key,
            }
        };
        self.entries.iter().map(row).collect()
    }

    /// A hash of the publisher as it was sent.
    fn raw_hash(&self, hash: EngineHash, size: SizeNumber) -> RawHash {
        match self.raw_hashes.get(&hash.in_size(size)) {
            Some(bytes) => RawHash::Bytes(bytes.clone()),
            None => RawHash::Number(hash),
        }
    }

    /// The publisher's attached hashes by the tag of their key; the smallest where several have the same tag.
    fn hashes_by_tag(&self) -> HashMap<u32, (EngineHash, SizeNumber)> {
        let mut by_tag: HashMap<u32, (EngineHash, SizeNumber)> = HashMap::with_capacity(self.entries.len());
        for entry in &self.entries {
            let Some(key) = entry.key else { continue };
            let found = (entry.hash, entry.size);
            by_tag.entry(key.tag()).and_modify(|least| *least = (*least).min(found)).or_insert(found);
        }
        by_tag
    }
}
