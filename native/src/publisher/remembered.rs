//! The content of blocks that were removed lately, as `kvsync_indexer/core/remembered.py` keeps it.

use std::collections::HashMap;

use crate::ids::{BlockId, PrefixKey};

/// A removed block and its content.
#[derive(Clone, Copy)]
struct Removed {
    id: BlockId,
    key: PrefixKey,
    parent_tag: u32,
}

/// The content of the last removals. They are found by their ids only once an event has asked for one, because most
/// publishers send no hashes without tokens, and for them a removal costs one write.
#[derive(Default)]
pub(crate) struct Remembered {
    ring: Vec<Removed>,
    next: usize,
    places: Option<HashMap<BlockId, u32>>,
}

impl Remembered {
    /// Remember a removed block in place of the oldest one, if there are `capacity` already.
    #[inline(always)]
    pub fn add(&mut self, capacity: usize, id: BlockId, key: PrefixKey, parent_tag: u32) {
        let removed = Removed { id, key, parent_tag };
        if self.ring.len() < capacity {
            self.ring.push(removed);
        } else {
            let old = std::mem::replace(&mut self.ring[self.next], removed);
            if let Some(places) = &mut self.places {
                if places.get(&old.id) == Some(&(self.next as u32)) {
                    places.remove(&old.id);
                }
            }
        }
        if let Some(places) = &mut self.places {
            places.insert(id, self.next as u32);
        }
        self.next = if self.next + 1 == capacity { 0 } else { self.next + 1 };
    }

    /// The key and the parent's tag that the block had when it was removed the last time.
    pub fn get(&mut self, id: BlockId) -> Option<(PrefixKey, u32)> {
        if self.ring.is_empty() {
            return None;
        }
        let (ring, next) = (&self.ring, self.next);
        let places = self.places.get_or_insert_with(|| {
            let oldest_first = (next..ring.len()).chain(0..next);
            oldest_first.map(|at| (ring[at].id, at as u32)).collect()
        });
        places.get(&id).map(|&at| (ring[at as usize].key, ring[at as usize].parent_tag))
    }

    /// The memory that it takes.
    pub fn bytes(&self) -> usize {
        let places = self.places.as_ref().map_or(0, |places| places.capacity() * 24);
        self.ring.capacity() * std::mem::size_of::<Removed>() + places
    }
}
