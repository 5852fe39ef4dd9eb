//! Matches of publishers whose groups have different block sizes: `_tiers_over_sizes` in
//! `kvsync_indexer/core/matching.py` is the same in Python.
//!
//! There are few such publishers, and their groups must agree on the end of a match, so each is looked at on its own.

use super::found::Tiers;
use super::{Found, Index};
use crate::groups::ResidencyRule;
use crate::holders::HolderSet;
use crate::ids::{NodeId, PrefixKey};
use crate::publisher::Publisher;

/// The keys of a prompt in blocks of one size, computed as far as they were asked for.
struct Keys<K> {
    known: Vec<PrefixKey>,
    rest: K,
}

impl<K: Iterator<Item = PrefixKey>> Keys<K> {
    fn get(&mut self, at: usize) -> Option<PrefixKey> {
        while self.known.len() <= at {
            let next = self.rest.next()?;
            self.known.push(next);
        }
        Some(self.known[at])
    }
}

/// The keys of a prompt by block size.
type KeysBySize<K> = Vec<(u32, Keys<K>)>;

/// Append what these publishers hold of a prompt. The keys are computed only if there is a publisher.
pub(super) fn match_publishers<'p, K: Iterator<Item = PrefixKey>>(
    index: Index,
    mut publishers: impl Iterator<Item = &'p Publisher>,
    chains: impl Iterator<Item = (u32, K)>,
    found: &mut Vec<Found>,
) {
    let Some(first) = publishers.next() else { return };
    let keys = chains.map(|(size, rest)| (size, Keys { known: Vec::new(), rest }));
    let mut keys: KeysBySize<K> = keys.collect();
    for publisher in std::iter::once(first).chain(publishers) {
        let has_all = publisher.plan.rules.iter().all(|rule| keys.iter().any(|(size, _)| *size == rule.0));
        if has_all {
            let walk = Walk { index, publisher, set: HolderSet::EMPTY, mask: 0, hint: NodeId::NO_HINT };
            found.extend(walk.find(&mut keys));
        }
    }
}

/// A look at the blocks of one publisher.
struct Walk<'a> {
    index: Index<'a>,
    publisher: &'a Publisher,
    /// The holders of the last block, and which slots of the publisher are among them.
    set: HolderSet,
    mask: u64,
    hint: NodeId,
}

impl Walk<'_> {
    fn find<K: Iterator<Item = PrefixKey>>(mut self, keys: &mut KeysBySize<K>) -> Option<Found> {
        let plan = &self.publisher.plan;
        let mut limit = u64::MAX;
        for (size, rule) in &plan.rules {
            limit = limit.min(self.full_tokens(*size, rule, of_size(keys, *size), limit));
        }
        let units = (limit / plan.alignment) as usize;
        let mut open = vec![true; units];
        for (size, rule) in plan.rules.iter().filter(|(_, rule)| !rule.windows.is_empty()) {
            let step = (plan.alignment / *size as u64) as usize;
            self.close_ends(rule, of_size(keys, *size), step, &mut open);
        }
        let units = open.iter().rposition(|&open| open)? + 1;
        let blocks = units * (plan.alignment / plan.block_size as u64) as usize;
        let rule = &plan.rules.iter().find(|(size, _)| *size == plan.block_size)?.1;
        let (keys, mut tiers) = (of_size(keys, plan.block_size), Tiers::default());
        for at in 0..blocks {
            let mask = self.mask(keys.get(at)?);
            if let Some(medium) = rule.tier(mask) {
                tiers.add(medium, 1);
            }
        }
        let tiers = tiers.nearest_first(&self.index.shared.media);
        Some(Found { publisher: self.publisher.id, blocks: blocks as u32, block_size: plan.block_size, tiers })
    }

    /// The tokens of the prompt, up to `limit`, of which every full-attention group of this size holds every block.
    fn full_tokens<K: Iterator<Item = PrefixKey>>(
        &mut self,
        size: u32,
        rule: &ResidencyRule,
        keys: &mut Keys<K>,
        limit: u64,
    ) -> u64 {
        let mut blocks = 0;
        while blocks as u64 * (size as u64) < limit {
            match keys.get(blocks) {
                Some(key) if rule.full.is_empty() || rule.held(self.mask(key)) => blocks += 1,
                _ => break,
            }
        }
        blocks as u64 * size as u64
    }

    /// Close the ends, one for every `step` blocks, before which the window of a group is not resident.
    fn close_ends<K: Iterator<Item = PrefixKey>>(
        &mut self,
        rule: &ResidencyRule,
        keys: &mut Keys<K>,
        step: usize,
        open: &mut [bool],
    ) {
        let mut runs = vec![0u32; rule.windows.len()];
        for at in 0..open.len() * step {
            let mask = keys.get(at).map_or(0, |key| self.mask(key));
            let mut resident = true;
            for (run, window) in runs.iter_mut().zip(&rule.windows) {
                *run = if mask & window.mask == 0 { 0 } else { *run + 1 };
                resident &= u64::from(*run) >= u64::from(window.needed).min(at as u64 + 1);
            }
            if (at + 1) % step == 0 {
                open[at / step] &= resident;
            }
        }
    }

    /// The slots of the publisher that hold the block.
    fn mask(&mut self, key: PrefixKey) -> u64 {
        let nodes = &self.index.shared.nodes;
        let Some((node, set)) = nodes.find(key, self.hint) else { return 0 };
        self.hint = node.next();
        if set != self.set {
            self.set = set;
            let slots = self.publisher.slots.iter().enumerate();
            let held = slots.filter(|(_, slot)| nodes.holders.contains(set, slot.column));
            self.mask = held.fold(0, |mask, (at, _)| mask | 1 << at);
        }
        self.mask
    }
}

fn of_size<K>(keys: &mut KeysBySize<K>, size: u32) -> &mut Keys<K> {
    let found = keys.iter_mut().find(|(known, _)| *known == size);
    &mut found.expect("keys of every block size").1
}
