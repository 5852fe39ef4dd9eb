//! Blocks whose content is not known yet: who they wait for, and what happens when that comes.

use super::{Applied, Publisher, Shared};
use crate::hash::mix;
use crate::table::ORPHAN;
use crate::wire::WireHash;

/// An engine hash outside the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spelled {
    Number(u64),
    Bytes(Box<[u8]>),
}

impl Spelled {
    pub fn key(&self) -> u64 {
        match self {
            Spelled::Number(key) => *key,
            Spelled::Bytes(bytes) => {
                bytes[bytes.len().saturating_sub(8)..].iter().fold(0, |key, &byte| key << 8 | byte as u64)
            }
        }
    }

    fn of(hash: &WireHash, data: &[u8]) -> Self {
        match hash.spelled {
            Some(span) => Spelled::Bytes(span.of(data).into()),
            None => Spelled::Number(hash.key),
        }
    }
}

/// A block whose own key is not known: it waits for its parent, or (neither given) for its tokens.
#[derive(Clone, Debug, Default)]
pub struct Orphan {
    pub text: u64,
    pub parent: Option<Spelled>,
}

/// The block an event is at: what its content is, as far as the event says.
pub(super) struct Step {
    pub hash: WireHash,
    pub own: Option<u64>,
    pub tag: u32,
    pub text: u64,
    pub parent: Option<WireHash>,
}

impl Publisher {
    /// The rare cases of a block's content: orphans. Returns its node, ORPHAN, or None if it is one orphan too many.
    pub(super) fn know(
        &mut self,
        shared: &mut Shared,
        data: &[u8],
        node: Option<u32>,
        step: Step,
        tally: &mut Applied,
    ) -> Option<u32> {
        let hash = step.hash.key;
        match node {
            None => {
                let parent = step.parent.map(|parent| Spelled::of(&parent, data));
                let orphan = Orphan { text: step.text, parent };
                // `hold` must see that the hash is new: say so with a node of ORPHAN and no entry.
                self.new_orphan(shared, hash, orphan, tally).then_some(ORPHAN)
            }
            Some(ORPHAN) => {
                if let Some(own) = step.own {
                    let orphan = self.orphans.remove(&hash);
                    if let Some(above) = orphan.and_then(|orphan| orphan.parent) {
                        self.unwait(hash, above.key());
                    }
                    let node = self.attach(shared, hash, own, step.tag, tally);
                    self.adopt(shared, hash, own, tally);
                    return Some(node);
                }
                if let (Some(orphan), Some(parent)) = (self.orphans.get_mut(&hash), step.parent) {
                    if orphan.parent.is_none() {
                        *orphan = Orphan { text: step.text, parent: Some(Spelled::of(&parent, data)) };
                        self.waiting.entry(parent.key).or_default().insert(hash);
                    }
                }
                Some(ORPHAN)
            }
            attached => attached,
        }
    }

    /// Remember a hash as an orphan; false if that is one too many.
    pub(super) fn new_orphan(&mut self, shared: &Shared, hash: u64, orphan: Orphan, tally: &mut Applied) -> bool {
        if self.orphans.len() >= shared.limits.max_orphans {
            self.refused += 1;
            tally.refused += 1;
            return false;
        }
        if let Some(parent) = &orphan.parent {
            self.waiting.entry(parent.key()).or_default().insert(hash);
        }
        self.orphans.insert(hash, orphan);
        tally.orphans += 1;
        true
    }

    pub(super) fn unwait(&mut self, hash: u64, above: u64) {
        if let Some(siblings) = self.waiting.get_mut(&above) {
            siblings.remove(&hash);
            if siblings.is_empty() {
                self.waiting.remove(&above);
            }
        }
    }

    /// Give an orphan, already out of `orphans` and `waiting`, its own key.
    fn attach(&mut self, shared: &mut Shared, hash: u64, own: u64, tag: u32, tally: &mut Applied) -> u32 {
        let node = shared.nodes.intern(own, tag, u32::MAX);
        tally.attached += 1;
        for slot in self.table.rename(hash, node) {
            self.show(shared, node, slot);
        }
        node
    }

    /// Attach everything that waited for this hash, and what waited for that.
    pub(super) fn adopt(&mut self, shared: &mut Shared, hash: u64, own: u64, tally: &mut Applied) {
        let mut todo = vec![(hash, own)];
        while let Some((above, key)) = todo.pop() {
            let Some(children) = self.waiting.remove(&above) else {
                continue;
            };
            for hash in children {
                if let Some(orphan) = self.orphans.remove(&hash) {
                    let own = mix(key, orphan.text);
                    self.attach(shared, hash, own, key as u32, tally);
                    todo.push((hash, own));
                }
            }
        }
    }
}
