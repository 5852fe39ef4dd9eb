//! Blocks whose content is not known yet: what they wait for, and what happens when it comes.

use super::{Applied, Publisher, RawHash};
use crate::ids::{BlockId, LocalHash, NodeId, PrefixKey, SizeNumber};
use crate::shared::Shared;
use crate::wire::WireHash;

/// A block whose prefix key is not known. It waits for its parent or, if it has none here, for its tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orphan {
    pub size: SizeNumber,
    pub local_hash: LocalHash,
    pub parent: Option<RawHash>,
}

impl Orphan {
    /// An orphan whose tokens are not known either.
    pub fn without_tokens(size: SizeNumber) -> Self {
        Orphan { size, ..Orphan::default() }
    }

    /// The parent that it waits for.
    fn parent_id(&self) -> Option<BlockId> {
        self.parent.as_ref().map(|parent| parent.hash().in_size(self.size))
    }
}

/// What an event says of the content of one of its blocks.
pub(super) struct Content {
    pub size: SizeNumber,
    pub key: Option<PrefixKey>,
    pub parent_tag: u32,
    pub local: LocalHash,
    pub parent: Option<WireHash>,
}

impl Publisher {
    /// Record the content of a block that is an orphan or becomes one; the other cases are handled by the caller.
    /// `node` is its node, if it is resident. Returns the node it has now, or None if the block is
    /// one orphan too many.
    pub(super) fn learn_content(
        &mut self,
        shared: &mut Shared,
        data: &[u8],
        id: BlockId,
        node: Option<NodeId>,
        content: Content,
        applied: &mut Applied,
    ) -> Option<NodeId> {
        let parent = |wire: &WireHash| RawHash::of(wire, data);
        match node {
            None => {
                let parent = content.parent.as_ref().map(parent);
                let orphan = Orphan { size: content.size, local_hash: content.local, parent };
                self.add_orphan(shared, id, orphan, applied).then_some(NodeId::ORPHAN)
            }
            Some(NodeId::ORPHAN) => {
                if let Some(key) = content.key {
                    self.remove_orphan(id);
                    let node = self.attach(shared, id, key, content.parent_tag, applied);
                    self.attach_waiting(shared, id, key, applied);
                    return Some(node);
                }
                if let (Some(orphan), Some(wire)) = (self.orphans.get_mut(&id), content.parent) {
                    if orphan.parent.is_none() {
                        let parent = Some(parent(&wire));
                        *orphan = Orphan { size: content.size, local_hash: content.local, parent };
                        self.waiting.entry(wire.hash.in_size(content.size)).or_default().insert(id);
                    }
                }
                Some(NodeId::ORPHAN)
            }
            attached => attached,
        }
    }

    /// Remember a block as an orphan; false if that would be one orphan too many.
    pub(super) fn add_orphan(&mut self, shared: &Shared, id: BlockId, orphan: Orphan, applied: &mut Applied) -> bool {
        if self.orphans.len() >= shared.limits.max_orphans {
            self.refused += 1;
            applied.refused += 1;
            return false;
        }
        self.wait_for_parent(id, orphan);
        applied.orphans += 1;
        true
    }

    /// Add an orphan, and note what it waits for.
    pub(super) fn wait_for_parent(&mut self, id: BlockId, orphan: Orphan) {
        if let Some(parent) = orphan.parent_id() {
            self.waiting.entry(parent).or_default().insert(id);
        }
        self.orphans.insert(id, orphan);
    }

    /// Forget that a block is an orphan.
    pub(super) fn remove_orphan(&mut self, id: BlockId) {
        let Some(parent) = self.orphans.remove(&id).and_then(|orphan| orphan.parent_id()) else {
            return;
        };
        if let Some(siblings) = self.waiting.get_mut(&parent) {
            siblings.remove(&id);
            if siblings.is_empty() {
                self.waiting.remove(&parent);
            }
        }
    }

    /// Give a block that is no longer among the orphans its prefix key.
    pub(super) fn attach(
        &mut self,
        shared: &mut Shared,
        id: BlockId,
        key: PrefixKey,
        parent_tag: u32,
        applied: &mut Applied,
    ) -> NodeId {
        let node = shared.nodes.intern(key, parent_tag, NodeId::NO_HINT);
        applied.attached += 1;
        for slot in self.table.set_node(id, node) {
            self.show(shared, node, slot);
        }
        node
    }
}
