//! Blocks by prefix key, shared by all publishers: 16 bytes per node, and 8 per entry of the table that finds it.
//!
//! The nodes of a chain are usually made one after the other. A caller that walks a chain therefore passes the next node
//! as a hint, and the table is searched only where the hint is wrong.

use crate::holders::{HolderSet, Holders};
use crate::ids::{Column, NodeId, PrefixKey};
use crate::segments::{Cell, Segments};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    /// The block's key; in a free node, the number of the next free one.
    pub key: PrefixKey,
    /// Who holds the block; empty in a free node.
    pub holders: HolderSet,
    /// The tag of the parent's key, 0 for the first block of a chain.
    pub parent_tag: u32,
}

/// An entry of the table: the high 32 bits of a key, and its node's number plus one.
#[derive(Clone, Copy)]
struct Finger(u64);

impl Finger {
    #[inline(always)]
    fn new(key: PrefixKey, node: NodeId) -> Self {
        Finger(high(key) | (node.0 as u64 + 1))
    }

    #[inline(always)]
    fn node(self) -> NodeId {
        NodeId(self.0 as u32 - 1)
    }
}

impl Cell for Finger {
    #[inline(always)]
    fn hash(&self, _: u64) -> u64 {
        self.0 & HIGH
    }
}

const HIGH: u64 = 0xFFFF_FFFF_0000_0000;
const NO_NODE: u32 = u32::MAX;

#[inline(always)]
fn high(key: PrefixKey) -> u64 {
    key.0 & HIGH
}

/// All nodes of a core.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    /// The first free node, NO_NODE if there is none.
    free: u32,
    live: usize,
    table: Segments<Finger>,
    pub holders: Holders,
}

impl Nodes {
    pub fn new(seed: u64) -> Self {
        Nodes { nodes: Vec::new(), free: NO_NODE, live: 0, table: Segments::new(seed), holders: Holders::new(seed) }
    }

    pub fn len(&self) -> usize {
        self.live
    }

    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * std::mem::size_of::<Node>() + self.table.bytes() + self.holders.bytes()
    }

    #[inline(always)]
    pub fn get(&self, node: NodeId) -> &Node {
        &self.nodes[node.index()]
    }

    /// Prefetch what finds the key.
    #[inline(always)]
    pub fn prefetch(&self, key: PrefixKey) {
        self.table.prefetch(high(key));
    }

    /// Prefetch the table's cell that a new node of this key would get.
    #[inline(always)]
    pub fn prefetch_free(&self, key: PrefixKey) {
        self.table.prefetch_free(high(key));
    }

    /// Whether the node that a hint points at has this key and is in use.
    #[inline(always)]
    fn hinted(&self, key: PrefixKey, hint: NodeId) -> Option<&Node> {
        self.nodes.get(hint.index()).filter(|node| node.key == key && node.holders != HolderSet::EMPTY)
    }

    /// The node of a key and its holders; the node at `hint` is tried first.
    #[inline(always)]
    pub fn find(&self, key: PrefixKey, hint: NodeId) -> Option<(NodeId, HolderSet)> {
        match self.hinted(key, hint) {
            Some(node) => Some((hint, node.holders)),
            None => self.find_without_hint(key),
        }
    }

    /// Not inlined, so that the loop over a chain whose hints are right stays small.
    #[inline(never)]
    fn find_without_hint(&self, key: PrefixKey) -> Option<(NodeId, HolderSet)> {
        self.search(key).map(|found| (found, self.get(found).holders))
    }

    #[inline(always)]
    fn search(&self, key: PrefixKey) -> Option<NodeId> {
        let mut found = NodeId(0);
        self.table.probe(high(key), |finger| {
            found = finger.node();
            (finger.0 ^ key.0) & HIGH == 0 && self.get(found).key == key
        })?;
        Some(found)
    }

    /// The node of a key, made if it is not there; a new node has no holder until `show`.
    #[inline]
    pub fn intern(&mut self, key: PrefixKey, parent_tag: u32, hint: NodeId) -> NodeId {
        if self.hinted(key, hint).is_some() {
            return hint;
        }
        self.search(key).unwrap_or_else(|| self.make(Node { key, holders: HolderSet::EMPTY, parent_tag }))
    }

    #[inline(always)]
    fn make(&mut self, node: Node) -> NodeId {
        let made = if self.free == NO_NODE {
            if self.nodes.len() == self.nodes.capacity() {
                self.grow();
            }
            self.nodes.push(node);
            NodeId::at(self.nodes.len() - 1)
        } else {
            let made = NodeId(self.free);
            self.free = self.get(made).key.0 as u32;
            self.nodes[made.index()] = node;
            made
        };
        self.live += 1;
        self.table.insert(high(node.key), Finger::new(node.key, made));
        made
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        assert!(self.nodes.len() < NO_NODE as usize / 2, "more than two billion distinct blocks");
        self.nodes.reserve_exact((self.nodes.len() / 8).max(256));
    }

    /// Whether the column holds the node.
    #[inline(always)]
    pub fn shows(&self, node: NodeId, column: Column) -> bool {
        self.holders.contains(self.get(node).holders, column)
    }

    /// Record that the column, which did not hold the node, holds it now.
    #[inline(always)]
    pub fn show(&mut self, node: NodeId, column: Column) {
        let node = &mut self.nodes[node.index()];
        node.holders = self.holders.add(node.holders, column);
    }

    /// Record that the column no longer holds the node; a node without holders is freed.
    #[inline]
    pub fn hide(&mut self, id: NodeId, column: Column) {
        let node = &mut self.nodes[id.index()];
        node.holders = self.holders.remove(node.holders, column);
        if node.holders == HolderSet::EMPTY {
            self.release(id);
        }
    }

    fn release(&mut self, id: NodeId) {
        let key = self.get(id).key;
        let wanted = Finger::new(key, id);
        if let Some(place) = self.table.probe(high(key), |finger| finger.0 == wanted.0) {
            self.table.remove(place);
        }
        self.nodes[id.index()].key = PrefixKey(self.free as u64);
        self.free = id.0;
        self.live -= 1;
        if self.live == 0 {
            self.nodes = Vec::new();
            self.free = NO_NODE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::splitmix;
    use std::collections::{HashMap, HashSet};

    #[test]
    fn equals_a_map_of_sets_under_churn() {
        let mut nodes = Nodes::new(3);
        let mut model: HashMap<PrefixKey, HashSet<Column>> = HashMap::new();
        let mut state = 1u64;
        for step in 0..200_000u64 {
            state = splitmix(state.wrapping_add(step));
            let key = PrefixKey(splitmix(state % 500) & !0xFF00_0000_0000_0000 | (state % 2) << 63);
            let column = Column((state >> 33) as u32 % 130);
            let holders = model.entry(key).or_default();
            if holders.remove(&column) {
                let node = nodes.find(key, NodeId(0)).unwrap().0;
                assert!(nodes.shows(node, column));
                nodes.hide(node, column);
                if holders.is_empty() {
                    model.remove(&key);
                    assert_eq!(nodes.find(key, node), None);
                }
            } else {
                holders.insert(column);
                let node = nodes.intern(key, 0, NodeId((state >> 20) as u32 % 600));
                assert!(!nodes.shows(node, column));
                nodes.show(node, column);
            }
            assert_eq!(nodes.len(), model.len());
        }
        for (&key, holders) in &model {
            let node = nodes.find(key, NodeId(5)).unwrap().0;
            let mut found = HashSet::new();
            nodes.holders.each(nodes.get(node).holders, |column| assert!(found.insert(column)));
            assert_eq!(found, *holders);
        }
    }
}
