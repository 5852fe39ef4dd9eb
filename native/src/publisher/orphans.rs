//! Blocks whose content is not known yet: what they wait for, and what happens when it comes.

use super::{Applied, Publisher, RawHash};
use crate::hash::mix;
use crate::ids::{EngineHash, LocalHash, NodeId, PrefixKey};
use crate::shared::Shared;
use crate::wire::WireHash;

/// A block whose prefix key is not known. It waits for its parent or, if it has none here, for its tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orphan {
    pub local_hash: LocalHash,
    pub parent: Option<RawHash>,
}

/// What an event says of the content of one of its blocks.
pub(super) struct Content {
    pub key: Option<PrefixKey>,
    pub parent_tag: u32,
    pub local: LocalHash,
    pub parent: Option<WireHash>,
}

impl Publisher {
    /// Record the content of a block that is an orphan or becomes one; the other cases are handled by the caller.
    /// `node` is the node of the hash, if the hash is resident. Returns the node it has now, or None if the block is
    /// one orphan too many.
    pub(super) fn learn_content(
        &mut self,
        shared: &mut Shared,
        data: &[u8],
        hash: EngineHash,
        node: Option<NodeId>,
        content: Content,
        applied: &mut Applied,
    ) -> Option<NodeId> {
        let parent = |wire: &WireHash| RawHash::of(wire, data);
        match node {
            None => {
                let orphan = Orphan { local_hash: content.local, parent: content.parent.as_ref().map(parent) };
                self.add_orphan(shared, hash, orphan, applied).then_some(NodeId::ORPHAN)
            }
            Some(NodeId::ORPHAN) => {
                if let Some(key) = content.key {
                    self.remove_orphan(hash);
                    let node = self.attach(shared, hash, key, content.parent_tag, applied);
                    self.attach_waiting(shared, hash, key, applied);
                    return Some(node);
                }
                if let (Some(orphan), Some(wire)) = (self.orphans.get_mut(&hash), content.parent) {
                    if orphan.parent.is_none() {
                        *orphan = Orphan { local_hash: content.local, parent: Some(parent(&wire)) };
                        self.waiting.entry(wire.hash).or_default().insert(hash);
                    }
                }
                Some(NodeId::ORPHAN)
            }
            attached => attached,
        }
    }

    /// Remember a hash as an orphan; false if that would be one orphan too many.
    pub(super) fn add_orphan(
        &mut self,
        shared: &Shared,
        hash: EngineHash,
        orphan: Orphan,
        applied: &mut Applied,
    ) -> bool {
        if self.orphans.len() >= shared.limits.max_orphans {
            self.refused += 1;
            applied.refused += 1;
            return false;
        }
        self.wait_for_parent(hash, orphan);
        applied.orphans += 1;
        true
    }

    /// Add an orphan, and note what it waits for.
    pub(super) fn wait_for_parent(&mut self, hash: EngineHash, orphan: Orphan) {
        if let Some(parent) = &orphan.parent {
            self.waiting.entry(parent.hash()).or_default().insert(hash);
        }
        self.orphans.insert(hash, orphan);
    }

    /// Forget that a hash is an orphan.
    pub(super) fn remove_orphan(&mut self, hash: EngineHash) {
        let Some(parent) = self.orphans.remove(&hash).and_then(|orphan| orphan.parent) else {
            return;
        };
        let parent = parent.hash();
        if let Some(siblings) = self.waiting.get_mut(&parent) {
            siblings.remove(&hash);
            if siblings.is_empty() {
                self.waiting.remove(&parent);
            }
        }
    }

    /// Give a hash that is no longer among the orphans its prefix key.
    fn attach(
        &mut self,
        shared: &mut Shared,
        hash: EngineHash,
        key: PrefixKey,
        parent_tag: u32,
        applied: &mut Applied,
    ) -> NodeId {
        let node = shared.nodes.intern(key, parent_tag, NodeId::NO_HINT);
        applied.attached += 1;
        for slot in self.table.set_node(hash, node) {
            self.show(shared, node, slot);
        }
        node
    }

    /// Attach every block that waited for this hash, and every block that waited for one of those.
    pub(super) fn attach_waiting(
        &mut self,
        shared: &mut Shared,
        hash: EngineHash,
        key: PrefixKey,
        applied: &mut Applied,
    ) {
        let mut parents = vec![(hash, key)];
        while let Some((parent, parent_key)) = parents.pop() {
            let Some(children) = self.waiting.remove(&parent) else {
                continue;
            };
            for child in children {
                if let Some(orphan) = self.orphans.remove(&child) {
                    let key = mix(parent_key, orphan.local_hash);
                    self.attach(shared, child, key, parent_key.tag(), applied);
                    parents.push((child, key));
                }
            }
        }
    }
}
