//! Walking a chain of keys: who holds how much of it.
//!
//! Along a chain the set of holders rarely changes, and it is one number a block. So the walk compares numbers and looks
//! at publishers only where the number changes: then it closes a segment for each publisher whose columns changed. The
//! rules of a match are those of `kvsync_indexer/core/matching.py`.

use crate::core::{Core, Fault};
use crate::groups::Plan;
use crate::hash::{mix, text_of};
use crate::holders::NOBODY;
use crate::publisher::Publisher;

/// One publisher of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub publisher: u32,
    pub blocks: u32,
    pub block_size: u32,
    /// (medium, blocks), nearest first.
    pub tiers: Tiers,
}

/// Blocks by medium: one is the rule, and then there is nothing to allocate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiers {
    pub first: Option<(u16, u32)>,
    pub more: Vec<(u16, u32)>,
}

impl Tiers {
    #[inline]
    fn add(&mut self, medium: u16, blocks: u32) {
        match &mut self.first {
            None => self.first = Some((medium, blocks)),
            Some(first) if first.0 == medium => first.1 += blocks,
            _ => match self.more.iter_mut().find(|tier| tier.0 == medium) {
                Some(tier) => tier.1 += blocks,
                None => self.more.push((medium, blocks)),
            },
        }
    }
}

/// What the walk knows of one publisher.
#[derive(Clone, Debug, Default)]
struct Lane {
    stamp: u64,
    mask: u64,
    since: u32,
    blocks: u32,
    medium: u16,
    out: bool,
    dirty: bool,
    windows: bool,
    tiers: Tiers,
    /// For publishers with window groups: start of each group's current run, and the segments so far.
    runs: Vec<u32>,
    segments: Vec<(u32, u32, Option<u16>)>,
}

const NO_RUN: u32 = u32::MAX;

/// Scratch of the walks, and publishers' places in the order of names.
#[derive(Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    stamp: u64,
    allowed: Vec<u64>,
    ranks: Vec<u32>,
    stale: bool,
    candidates: Vec<u32>,
    dirty: Vec<u32>,
}

impl Lanes {
    /// Publishers came or went.
    pub fn changed(&mut self) {
        self.stale = true;
    }

    pub fn bytes(&self) -> usize {
        self.lanes.capacity() * std::mem::size_of::<Lane>()
    }

    fn refresh(&mut self, publishers: &[Option<Publisher>]) {
        if !self.stale {
            return;
        }
        self.stale = false;
        self.lanes.resize(publishers.len(), Lane::default());
        self.allowed.resize(publishers.len(), 0);
        let mut order: Vec<(&str, usize)> =
            publishers.iter().enumerate().filter_map(|(at, one)| Some((&*one.as_ref()?.name, at))).collect();
        order.sort_unstable();
        self.ranks.resize(publishers.len(), 0);
        for (rank, (_, at)) in order.into_iter().enumerate() {
            self.ranks[at] = rank as u32;
        }
    }
}

/// Own keys of a prompt, computed a few blocks ahead of the walk so that a miss does not pay for the whole prompt.
pub struct TokenKeys<'a> {
    texts: Texts<'a>,
    key: u64,
    blocks: usize,
    done: usize,
    ready: [u64; 64],
    filled: usize,
    at: usize,
}

/// Where the texts of a prompt's blocks come from.
pub enum Texts<'a> {
    /// Little-endian u32 tokens, bytes a block, seed.
    Plain(&'a [u8], usize, u64),
    /// Computed already, because blocks have keys of their own.
    Ready(Vec<u64>),
}

impl<'a> TokenKeys<'a> {
    pub fn new(texts: Texts<'a>, root: u64) -> Self {
        let blocks = match &texts {
            Texts::Plain(tokens, width, _) => tokens.len() / width,
            Texts::Ready(texts) => texts.len(),
        };
        TokenKeys { texts, key: root, blocks, done: 0, ready: [0; 64], filled: 0, at: 0 }
    }

    #[cold]
    #[inline(never)]
    fn fill(&mut self) {
        let most = if self.done == 0 { 4 } else { 64 };
        let count = most.min(self.blocks - self.done);
        match &self.texts {
            Texts::Plain(tokens, width, seed) => {
                let tokens = &tokens[self.done * width..(self.done + count) * width];
                for (slot, block) in self.ready.iter_mut().zip(tokens.chunks_exact(*width)) {
                    *slot = text_of(block, *seed);
                }
            }
            Texts::Ready(texts) => self.ready[..count].copy_from_slice(&texts[self.done..self.done + count]),
        }
        for slot in &mut self.ready[..count] {
            self.key = mix(self.key, *slot);
            *slot = self.key;
        }
        self.done += count;
        self.filled = count;
        self.at = 0;
    }
}

impl Iterator for TokenKeys<'_> {
    type Item = u64;

    #[inline(always)]
    fn next(&mut self) -> Option<u64> {
        if self.at == self.filled {
            if self.done == self.blocks {
                return None;
            }
            self.fill();
        }
        self.at += 1;
        Some(self.ready[self.at - 1])
    }
}

impl Core {
    /// Restrict the next walks to these publishers; call before `walk`, once a query.
    pub fn begin_query<'n>(&mut self, only: Option<impl Iterator<Item = &'n str>>) -> bool {
        self.lanes.refresh(&self.publishers);
        self.lanes.stamp += 1;
        let Some(names) = only else { return false };
        for name in names {
            if let Some(number) = self.number(name) {
                self.lanes.allowed[number as usize] = self.lanes.stamp;
            }
        }
        true
    }

    /// Block sizes that publishers of the model use, ascending.
    pub fn sizes(&self, model: &str) -> Vec<u32> {
        let Some(model) = self.models.iter().position(|known| known == model) else {
            return Vec::new();
        };
        let mut sizes: Vec<u32> = Vec::new();
        for publisher in self.publishers.iter().flatten().filter(|one| one.model as usize == model) {
            for &(size, _) in publisher.plans() {
                if !sizes.contains(&size) {
                    sizes.push(size);
                }
            }
        }
        sizes.sort_unstable();
        sizes
    }

    /// Follow the keys and append what was found, unsorted. `restricted`: as `begin_query` said.
    pub fn walk(
        &mut self,
        model: &str,
        block_size: u32,
        keys: impl Iterator<Item = u64>,
        restricted: bool,
        found: &mut Vec<Found>,
    ) {
        let Some(model) = self.models.iter().position(|known| known == model) else {
            return;
        };
        // A lane belongs to this walk if it has its stamp; `allowed` has the query's, which is older or the same.
        let query = self.lanes.stamp;
        let mut lanes = std::mem::take(&mut self.lanes);
        lanes.candidates.clear();
        let allowed = |lanes: &Lanes, number: u32| !restricted || lanes.allowed[number as usize] == query;
        let nodes = &self.shared.nodes;
        let (mut at, mut current, mut near, mut alive) = (0u32, NOBODY, u32::MAX, 0usize);
        for key in keys {
            let handle = match nodes.find(key, near) {
                Some((node, holders)) => {
                    near = node + 1;
                    holders
                }
                None => NOBODY,
            };
            if at == 0 {
                nodes.holders.each(handle, |column| {
                    let (number, slot) = self.shared.columns.owner(column);
                    if allowed(&lanes, number) && self.get(number).model as usize == model {
                        lanes.join(number, query).mask |= 1 << slot;
                    }
                });
                self.join_windows(&mut lanes, model, block_size, |lanes, number| allowed(lanes, number));
                alive = self.start(&mut lanes, block_size);
                current = handle;
                if alive == 0 {
                    break;
                }
            } else if handle != current {
                alive -= self.change(&mut lanes, current, handle, at, block_size, query);
                current = handle;
                if alive == 0 {
                    break;
                }
            }
            at += 1;
        }
        self.finish(&mut lanes, at, block_size, found);
        // Lanes of this walk must not be taken for those of the next block size.
        for &number in &lanes.candidates {
            lanes.lanes[number as usize].stamp = 0;
        }
        self.lanes = lanes;
    }

    /// Publishers with window groups only may start matching after the first block.
    fn join_windows(&self, lanes: &mut Lanes, model: usize, size: u32, allowed: impl Fn(&Lanes, u32) -> bool) {
        for publisher in self.publishers.iter().flatten() {
            if publisher.model as usize == model
                && publisher.has_window_plans()
                && publisher.plan(size).is_some_and(|plan| plan.full.is_empty())
                && allowed(lanes, publisher.number)
            {
                let stamp = lanes.stamp;
                lanes.join(publisher.number, stamp);
            }
        }
    }

    /// The first block's masks are known: who is in the walk. Returns how many.
    fn start(&self, lanes: &mut Lanes, size: u32) -> usize {
        let mut alive = 0;
        for at in 0..lanes.candidates.len() {
            let number = lanes.candidates[at];
            let lane = &mut lanes.lanes[number as usize];
            match self.get(number).plan(size) {
                Some(plan) => {
                    lane.windows = !plan.windows.is_empty();
                    if lane.windows {
                        lane.runs.clear();
                        lane.runs.resize(plan.windows.len(), NO_RUN);
                        lane.segments.clear();
                    }
                    lane.enter(plan);
                }
                None => lane.out = true,
            }
            alive += usize::from(!lane.out);
        }
        alive
    }

    /// The set of holders changes before block `at`. Returns how many publishers go.
    fn change(&self, lanes: &mut Lanes, old: u32, new: u32, at: u32, size: u32, stamp: u64) -> usize {
        let mut dirty = std::mem::take(&mut lanes.dirty);
        dirty.clear();
        self.shared.nodes.holders.each_difference(old, new, |column| {
            let (number, slot) = self.shared.columns.owner(column);
            let lane = &mut lanes.lanes[number as usize];
            if lane.stamp == stamp && !lane.out {
                if !lane.dirty {
                    lane.dirty = true;
                    if lane.windows {
                        if let Some(plan) = self.get(number).plan(size) {
                            lane.close_windows(plan, at);
                        }
                    } else {
                        lane.close(at);
                    }
                    dirty.push(number);
                }
                lane.mask ^= 1 << slot;
            }
        });
        let mut gone = 0;
        for &number in &dirty {
            let lane = &mut lanes.lanes[number as usize];
            lane.dirty = false;
            if let Some(plan) = self.get(number).plan(size) {
                lane.enter(plan);
            }
            gone += usize::from(lane.out);
        }
        lanes.dirty = dirty;
        gone
    }

    fn finish(&self, lanes: &mut Lanes, end: u32, size: u32, found: &mut Vec<Found>) {
        for at in 0..lanes.candidates.len() {
            let number = lanes.candidates[at];
            let lane = &mut lanes.lanes[number as usize];
            if lane.windows {
                if !lane.out {
                    if let Some(plan) = self.get(number).plan(size) {
                        lane.close_windows(plan, end);
                    }
                }
                lane.count_windows();
            } else if !lane.out {
                lane.close(end);
            }
            if lane.blocks > 0 {
                let mut tiers = std::mem::take(&mut lane.tiers);
                if !tiers.more.is_empty() {
                    self.sort_tiers(&mut tiers);
                }
                found.push(Found { publisher: number, blocks: lane.blocks, block_size: size, tiers });
            }
        }
    }

    fn sort_tiers(&self, tiers: &mut Tiers) {
        let mut all: Vec<(u16, u32)> = tiers.first.into_iter().chain(tiers.more.drain(..)).collect();
        all.sort_by_key(|tier| self.shared.media.order(tier.0));
        tiers.first = Some(all[0]);
        tiers.more = all.split_off(1);
    }

    /// One entry a publisher, most tokens first, then by name. Where block sizes tie, the larger.
    pub fn rank(&self, found: &mut Vec<Found>, several_sizes: bool) {
        let tokens = |one: &Found| one.blocks as u64 * one.block_size as u64;
        if several_sizes {
            found.sort_by_key(|one| (one.publisher, std::cmp::Reverse((tokens(one), one.block_size))));
            found.dedup_by_key(|one| one.publisher);
        }
        let ranks = &self.lanes.ranks;
        found.sort_unstable_by_key(|one| (std::cmp::Reverse(tokens(one)), ranks[one.publisher as usize]));
    }

    /// Who holds how much of a chain of keys.
    pub fn match_keys(
        &mut self,
        model: &str,
        block_size: u32,
        keys: impl Iterator<Item = u64>,
        restricted: bool,
    ) -> Result<Vec<Found>, Fault> {
        let mut found = Vec::new();
        self.walk(model, block_size, keys, restricted, &mut found);
        self.rank(&mut found, false);
        Ok(found)
    }
}

impl Lanes {
    /// The publisher's lane, entered if it is not in this walk yet.
    fn join(&mut self, number: u32, stamp: u64) -> &mut Lane {
        let lane = &mut self.lanes[number as usize];
        if lane.stamp != stamp {
            lane.stamp = stamp;
            lane.mask = 0;
            lane.since = 0;
            lane.blocks = 0;
            lane.out = false;
            lane.dirty = false;
            lane.tiers = Tiers::default();
            self.candidates.push(number);
        }
        lane
    }
}

impl Lane {
    /// A segment with a new mask begins; the publisher is out if its full groups do not hold the block.
    #[inline]
    fn enter(&mut self, plan: &Plan) {
        if self.windows {
            self.out = !plan.held(self.mask);
            return;
        }
        match plan.tier(self.mask) {
            Some(medium) if plan.held(self.mask) => self.medium = medium,
            _ => self.out = true,
        }
    }

    #[inline]
    fn close(&mut self, at: u32) {
        if at > self.since {
            self.tiers.add(self.medium, at - self.since);
            self.since = at;
            self.blocks = at;
        }
    }

    /// Close a segment of a publisher with window groups: `blocks` becomes its end if every window is resident there.
    fn close_windows(&mut self, plan: &Plan, at: u32) {
        if at == self.since {
            return;
        }
        let mut good = true;
        for (run, &(wanted, needed)) in self.runs.iter_mut().zip(&plan.windows) {
            if self.mask & wanted == 0 {
                *run = NO_RUN;
                good = false;
            } else {
                if *run == NO_RUN {
                    *run = self.since;
                }
                good &= at - *run >= needed.min(at);
            }
        }
        if good {
            self.blocks = at;
        }
        self.segments.push((self.since, at, plan.tier(self.mask)));
        self.since = at;
    }

    fn count_windows(&mut self) {
        for &(start, end, medium) in &self.segments {
            let end = end.min(self.blocks);
            if let (Some(medium), true) = (medium, end > start) {
                self.tiers.add(medium, end - start);
            }
        }
    }
}
