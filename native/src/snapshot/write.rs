//! Writing a snapshot.

use super::{ATTACHED, HEAD, MAGIC, NO_WINDOW, RAW, VERSION, WAITS_FOR_PARENT, WAITS_FOR_TOKENS};
use crate::core::Core;
use crate::frozen::{Frozen, FrozenEntry};
use crate::groups::Group;
use crate::hash::checksum;
use crate::publisher::RawHash;

impl Core {
    /// The whole state. Equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let ids = self.publishers().into_iter().filter_map(|name| self.registry.id(&name));
        let parts: Vec<Vec<u8>> = ids.map(|id| self.frozen(id).part()).collect();
        join(self.seed(), &parts)
    }
}

/// A snapshot of the publishers whose parts these are, in the order of their names.
pub(crate) fn join(seed: u64, parts: &[Vec<u8>]) -> Vec<u8> {
    let length: usize = 4 + parts.iter().map(Vec::len).sum::<usize>();
    let mut out = Vec::with_capacity(HEAD + length + 8);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&seed.to_le_bytes());
    out.extend_from_slice(&(length as u64).to_le_bytes());
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let check = checksum(&out);
    out.extend_from_slice(&check.to_le_bytes());
    out
}

impl Frozen {
    /// The publisher's part of a snapshot.
    pub fn part(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 32 * self.entries.len());
        write_text(&mut out, &self.name);
        write_text(&mut out, &self.model);
        write_groups(&mut out, &self.groups);
        out.push(self.sizes.len() as u8);
        self.sizes.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
        out.push(self.slots.len() as u8);
        for slot in &self.slots {
            write_text(&mut out, &slot.name);
            out.extend_from_slice(&slot.group.0.to_le_bytes());
        }
        let is_one_block = |one: &FrozenEntry, two: &FrozenEntry| (one.hash, one.size) == (two.hash, two.size);
        let blocks = self.entries.chunk_by(is_one_block).count();
        out.extend_from_slice(&(blocks as u64).to_le_bytes());
        for held in self.entries.chunk_by(is_one_block) {
            out.extend_from_slice(&held[0].hash.0.to_le_bytes());
            out.push(held[0].size.0);
            self.write_content(&mut out, &held[0]);
            out.push(held.len() as u8);
            for entry in held {
                out.push(entry.slot);
                out.extend_from_slice(&entry.copies.to_le_bytes());
            }
        }
        out
    }

    /// Write the form of a hash, its bytes if it came as bytes, and what is known of its content.
    fn write_content(&self, out: &mut Vec<u8>, entry: &FrozenEntry) {
        let id = entry.hash.in_size(entry.size);
        let raw = self.raw_hashes.get(&id);
        let orphan = if entry.key.is_none() { self.orphans.get(&id) } else { None };
        let parent = orphan.and_then(|orphan| orphan.parent.as_ref());
        let content = match (entry.key, parent) {
            (Some(_), _) => ATTACHED,
            (None, Some(_)) => WAITS_FOR_PARENT,
            (None, None) => WAITS_FOR_TOKENS,
        };
        out.push(content | if raw.is_some() { RAW } else { 0 });
        if let Some(bytes) = raw {
            out.push(bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
        if let Some(key) = entry.key {
            out.extend_from_slice(&key.0.to_le_bytes());
            out.extend_from_slice(&entry.parent_tag.to_le_bytes());
        } else if let (Some(orphan), Some(parent)) = (orphan, parent) {
            out.extend_from_slice(&orphan.local_hash.0.to_le_bytes());
            match parent {
                RawHash::Number(hash) => {
                    out.push(0);
                    out.extend_from_slice(&hash.0.to_le_bytes());
                }
                RawHash::Bytes(bytes) => {
                    out.push(bytes.len() as u8);
                    out.extend_from_slice(bytes);
                }
            }
        }
    }
}

fn write_groups(out: &mut Vec<u8>, groups: &[Group]) {
    out.extend_from_slice(&(groups.len() as u16).to_le_bytes());
    for group in groups {
        out.extend_from_slice(&group.id.0.to_le_bytes());
        out.push(group.attention as u8);
        out.extend_from_slice(&group.window.unwrap_or(NO_WINDOW).to_le_bytes());
        out.push(group.sizes.len() as u8);
        for size in &group.sizes {
            out.extend_from_slice(&size.to_le_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}
