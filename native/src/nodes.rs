//! Blocks by own key, shared by all publishers: 16 bytes a node and 8 an entry of the table that finds it.
//!
//! Nodes of one chain are made one after the other, so whoever walks a chain looks at the next node first and needs the
//! table only where that guess fails.

use crate::holders::{Holders, NOBODY};
use crate::segments::{Cell, Segments};

#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Own key; in a free node the number of the next free one.
    pub key: u64,
    /// Who holds it; NOBODY in a free node.
    pub holders: u32,
    /// Low 32 bits of the parent's own key, 0 for a root.
    pub parent_tag: u32,
}

/// The high 32 bits of a key, and its node's number plus one.
#[derive(Clone, Copy)]
struct Finger(u64);

impl Cell for Finger {
    #[inline(always)]
    fn hash(&self, _: u64) -> u64 {
        self.0 & HIGH
    }
}

const HIGH: u64 = 0xFFFF_FFFF_0000_0000;
const NONE: u32 = u32::MAX;

pub struct Nodes {
    nodes: Vec<Node>,
    free: u32,
    live: usize,
    table: Segments<Finger>,
    pub holders: Holders,
}

impl Nodes {
    pub fn new(seed: u64) -> Self {
        Nodes { nodes: Vec::new(), free: NONE, live: 0, table: Segments::new(seed), holders: Holders::new(seed) }
    }

    pub fn len(&self) -> usize {
        self.live
    }

    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * std::mem::size_of::<Node>() + self.table.bytes() + self.holders.bytes()
    }

    #[inline(always)]
    pub fn get(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline(always)]
    pub fn prefetch(&self, key: u64) {
        self.table.prefetch(key & HIGH);
    }

    /// Ask for what a new node of this key will be found by.
    #[inline(always)]
    pub fn prefetch_free(&self, key: u64) {
        self.table.prefetch_free(key & HIGH);
    }

    /// The node of a key and who holds it; `near` is where to look first.
    #[inline(always)]
    pub fn find(&self, key: u64, near: u32) -> Option<(u32, u32)> {
        match self.nodes.get(near as usize) {
            Some(node) if node.key == key && node.holders != NOBODY => Some((near, node.holders)),
            _ => self.search_far(key),
        }
    }

    /// Out of the way of those who find the next node where they guess it.
    #[inline(never)]
    fn search_far(&self, key: u64) -> Option<(u32, u32)> {
        self.search(key).map(|found| (found, self.nodes[found as usize].holders))
    }

    #[inline(always)]
    fn search(&self, key: u64) -> Option<u32> {
        let mut found = 0;
        self.table.probe(key & HIGH, |finger| {
            found = finger.0 as u32 - 1;
            (finger.0 ^ key) & HIGH == 0 && self.nodes[found as usize].key == key
        })?;
        Some(found)
    }

    /// The node of a key, made if it is not there; a new one is held by nobody until `show`.
    #[inline]
    pub fn intern(&mut self, key: u64, parent_tag: u32, near: u32) -> u32 {
        match self.nodes.get(near as usize) {
            Some(node) if node.key == key && node.holders != NOBODY => return near,
            _ => {}
        }
        self.search(key).unwrap_or_else(|| self.make(Node { key, holders: NOBODY, parent_tag }))
    }

    #[inline(always)]
    fn make(&mut self, node: Node) -> u32 {
        let number = if self.free == NONE {
            if self.nodes.len() == self.nodes.capacity() {
                self.grow();
            }
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        } else {
            let number = self.free;
            self.free = self.nodes[number as usize].key as u32;
            self.nodes[number as usize] = node;
            number
        };
        self.live += 1;
        self.table.insert(node.key & HIGH, Finger(node.key & HIGH | (number as u64 + 1)));
        number
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        assert!(self.nodes.len() < NONE as usize / 2, "two billion distinct blocks");
        self.nodes.reserve_exact((self.nodes.len() / 8).max(256));
    }

    /// Whether the column holds the node.
    #[inline(always)]
    pub fn shows(&self, node: u32, column: u32) -> bool {
        self.holders.contains(self.nodes[node as usize].holders, column)
    }

    /// The column, which did not hold the node, does now.
    #[inline(always)]
    pub fn show(&mut self, node: u32, column: u32) {
        let node = &mut self.nodes[node as usize];
        node.holders = self.holders.add(node.holders, column);
    }

    /// The column no longer holds the node; a node held by nobody is freed.
    #[inline]
    pub fn hide(&mut self, number: u32, column: u32) {
        let node = &mut self.nodes[number as usize];
        node.holders = self.holders.remove(node.holders, column);
        if node.holders == NOBODY {
            self.release(number);
        }
    }

    fn release(&mut self, number: u32) {
        let key = self.nodes[number as usize].key;
        let wanted = key & HIGH | (number as u64 + 1);
        if let Some(place) = self.table.probe(key & HIGH, |finger| finger.0 == wanted) {
            self.table.remove(place);
        }
        self.nodes[number as usize].key = self.free as u64;
        self.free = number;
        self.live -= 1;
        if self.live == 0 {
            self.nodes = Vec::new();
            self.free = NONE;
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
        let mut model: HashMap<u64, HashSet<u32>> = HashMap::new();
        let mut state = 1u64;
        for step in 0..200_000u64 {
            state = splitmix(state.wrapping_add(step));
            let key = splitmix(state % 500) & !0xFF00_0000_0000_0000 | (state % 2) << 63;
            let column = (state >> 33) as u32 % 130;
            let holders = model.entry(key).or_default();
            if holders.remove(&column) {
                let node = nodes.find(key, 0).unwrap().0;
                assert!(nodes.shows(node, column));
                nodes.hide(node, column);
                if holders.is_empty() {
                    model.remove(&key);
                    assert_eq!(nodes.find(key, node), None);
                }
            } else {
                holders.insert(column);
                let node = nodes.intern(key, 0, (state >> 20) as u32 % 600);
                assert!(!nodes.shows(node, column));
                nodes.show(node, column);
            }
            assert_eq!(nodes.len(), model.len());
        }
        for (&key, holders) in &model {
            let node = nodes.find(key, 5).unwrap().0;
            let mut found = Vec::new();
            nodes.holders.each(nodes.get(node).holders, |column| found.push(column));
            assert_eq!(found.iter().copied().collect::<HashSet<_>>(), *holders);
        }
    }
}
