//! Matches: which publishers hold how much of a chain of prefix keys.
//!
//! Along a chain the set of holders rarely changes, and a node names its set by one number. The walk therefore compares
//! numbers, and looks at publishers only where the number changes: there it closes a segment for each publisher whose
//! slots changed. The rules of a match are those of `kvsync_indexer/core/matching.py`.

mod cursor;
mod found;
mod keys;
mod sizes;

use std::cmp::Reverse;

pub use found::{Found, Tiers};
pub(crate) use keys::PromptKeys;

use crate::holders::HolderSet;
use crate::ids::{ModelId, NodeId, PrefixKey, PublisherId};
use crate::registry::Registry;
use crate::shared::Shared;
use cursor::MatchCursor;

/// What a walk reads.
#[derive(Clone, Copy)]
pub(crate) struct Index<'a> {
    pub registry: &'a Registry,
    pub shared: &'a Shared,
}

/// One chain of a query: whose blocks of which size may match.
#[derive(Clone, Copy)]
struct Chain {
    model: ModelId,
    block_size: u32,
    /// Only the publishers that `Matcher::begin` was given.
    restricted: bool,
}

/// The scratch memory of walks, and the publishers' positions in the order of their names.
#[derive(Default)]
pub(crate) struct Matcher {
    /// By publisher. A cursor takes part in the current walk if it carries the query's stamp.
    cursors: Vec<MatchCursor>,
    /// The stamp of the query.
    stamp: u64,
    /// By publisher: the stamp of the last query that was restricted to it.
    allowed: Vec<u64>,
    ranks: Vec<u32>,
    stale: bool,
    /// The publishers that take part in the walk.
    candidates: Vec<PublisherId>,
    /// The publishers whose slots change at the current block.
    changed: Vec<PublisherId>,
}

impl Matcher {
    /// Say that publishers came or went.
    pub fn publishers_changed(&mut self) {
        self.stale = true;
    }

    /// The memory that the scratch takes.
    pub fn bytes(&self) -> usize {
        self.cursors.capacity() * std::mem::size_of::<MatchCursor>()
    }

    /// Who holds how much of a prompt. `chains` are the prompt's keys by block size, and `only` restricts the answer to
    /// these publishers. The answer has one entry per publisher, most tokens first, then by name.
    pub fn find<'n, K: Iterator<Item = PrefixKey>>(
        &mut self,
        index: Index,
        model: &str,
        only: Option<impl Iterator<Item = &'n str>>,
        chains: impl Iterator<Item = (u32, K)> + Clone,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let Some(model) = index.registry.model(model) else {
            return found;
        };
        let restricted = self.begin(index, only);
        for (block_size, keys) in chains.clone() {
            self.walk(index, Chain { model, block_size, restricted }, keys, &mut found);
        }
        let with_sizes = index.registry.iter().filter(|one| one.model == model && one.plan.rules.len() > 1);
        let with_sizes = with_sizes.filter(|one| !restricted || self.allowed[one.id.index()] == self.stamp);
        sizes::match_publishers(index, with_sizes, chains, &mut found);
        self.rank(&mut found);
        found
    }

    /// Begin a query, and return whether it is restricted to some publishers.
    fn begin<'n>(&mut self, index: Index, only: Option<impl Iterator<Item = &'n str>>) -> bool {
        self.refresh(index.registry);
        self.stamp += 1;
        let Some(names) = only else { return false };
        for id in names.filter_map(|name| index.registry.id(name)) {
            self.allowed[id.index()] = self.stamp;
        }
        true
    }

    fn refresh(&mut self, registry: &Registry) {
        if !self.stale {
            return;
        }
        self.stale = false;
        self.cursors.resize(registry.end(), MatchCursor::default());
        self.allowed.resize(registry.end(), 0);
        self.ranks.resize(registry.end(), 0);
        let mut order: Vec<(&str, PublisherId)> = registry.iter().map(|one| (&*one.name, one.id)).collect();
        order.sort_unstable();
        for (rank, (_, id)) in order.into_iter().enumerate() {
            self.ranks[id.index()] = rank as u32;
        }
    }

    /// Follow the keys of a chain and append what was found, unsorted.
    fn walk(&mut self, index: Index, chain: Chain, keys: impl Iterator<Item = PrefixKey>, found: &mut Vec<Found>) {
        let nodes = &index.shared.nodes;
        self.candidates.clear();
        let (mut at, mut current, mut hint, mut alive) = (0u32, HolderSet::EMPTY, NodeId::NO_HINT, 0usize);
        for key in keys {
            let holders = match nodes.find(key, hint) {
                Some((node, holders)) => {
                    hint = node.next();
                    holders
                }
                None => HolderSet::EMPTY,
            };
            if at == 0 {
                alive = self.start(index, chain, holders);
                current = holders;
                if alive == 0 {
                    break;
                }
            } else if holders != current {
                alive -= self.change(index, chain, current, holders, at);
                current = holders;
                if alive == 0 {
                    break;
                }
            }
            at += 1;
        }
        self.finish(index, chain, at, found);
        // The cursors of this walk must not be taken for those of the query's next chain.
        for &id in &self.candidates {
            self.cursors[id.index()].stamp = 0;
        }
    }

    /// Enter the publishers that hold the first block, or that may start matching after it. Returns how many remain.
    fn start(&mut self, index: Index, chain: Chain, holders: HolderSet) -> usize {
        index.shared.nodes.holders.each(holders, |column| {
            let (id, slot) = index.shared.columns.owner(column);
            if self.is_allowed(chain, id) && index.registry.get(id).model == chain.model {
                self.join(id).mask |= slot.bit();
            }
        });
        self.join_window_publishers(index, chain);
        let mut alive = 0;
        for &id in &self.candidates {
            let cursor = &mut self.cursors[id.index()];
            cursor.start(index.registry.get(id).plan.only_rule(chain.block_size));
            alive += usize::from(!cursor.out);
        }
        alive
    }

    /// Publishers that have only window groups for this block size may start matching after the first block.
    fn join_window_publishers(&mut self, index: Index, chain: Chain) {
        for publisher in index.registry.iter() {
            if publisher.model == chain.model
                && publisher.plan.only_rule(chain.block_size).is_some_and(|rule| rule.full.is_empty())
                && self.is_allowed(chain, publisher.id)
            {
                self.join(publisher.id);
            }
        }
    }

    #[inline(always)]
    fn is_allowed(&self, chain: Chain, id: PublisherId) -> bool {
        !chain.restricted || self.allowed[id.index()] == self.stamp
    }

    /// The cursor of a publisher, which joins the walk if it does not take part yet.
    #[inline(always)]
    fn join(&mut self, id: PublisherId) -> &mut MatchCursor {
        let cursor = &mut self.cursors[id.index()];
        if cursor.stamp != self.stamp {
            cursor.reset(self.stamp);
            self.candidates.push(id);
        }
        cursor
    }

    /// Go on with another set of holders from block `at`. Returns how many publishers stop matching there.
    fn change(&mut self, index: Index, chain: Chain, old: HolderSet, new: HolderSet, at: u32) -> usize {
        self.changed.clear();
        index.shared.nodes.holders.each_difference(old, new, |column| {
            let (id, slot) = index.shared.columns.owner(column);
            let cursor = &mut self.cursors[id.index()];
            if cursor.stamp == self.stamp && !cursor.out {
                if !cursor.changed {
                    cursor.changed = true;
                    cursor.close(at, || index.registry.get(id).plan.only_rule(chain.block_size));
                    self.changed.push(id);
                }
                cursor.mask ^= slot.bit();
            }
        });
        let mut gone = 0;
        for &id in &self.changed {
            let cursor = &mut self.cursors[id.index()];
            cursor.changed = false;
            if let Some(rule) = index.registry.get(id).plan.only_rule(chain.block_size) {
                cursor.enter(rule);
            }
            gone += usize::from(cursor.out);
        }
        gone
    }

    /// Close the segments that reach to the end of the chain, and append the publishers that hold something.
    fn finish(&mut self, index: Index, chain: Chain, end: u32, found: &mut Vec<Found>) {
        for &id in &self.candidates {
            let cursor = &mut self.cursors[id.index()];
            if !cursor.out {
                cursor.close(end, || index.registry.get(id).plan.only_rule(chain.block_size));
            }
            let tiers = cursor.take_tiers();
            if cursor.blocks > 0 {
                let tiers = tiers.nearest_first(&index.shared.media);
                found.push(Found { publisher: id, blocks: cursor.blocks, block_size: chain.block_size, tiers });
            }
        }
    }

    /// Sort what was found; no publisher is in it twice.
    fn rank(&self, found: &mut [Found]) {
        found.sort_unstable_by_key(|one| (Reverse(one.tokens()), self.ranks[one.publisher.index()]));
    }
}
