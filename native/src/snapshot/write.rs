//! Writing a snapshot.

use super::{ATTACHED, HEAD, MAGIC, NO_WINDOW, RAW, VERSION, WAITS_FOR_PARENT, WAITS_FOR_TOKENS};
use crate::core::Core;
use crate::groups::Group;
use crate::hash::checksum;
use crate::ids::{BlockId, EngineHash, NodeId, SizeNumber};
use crate::publisher::{Publisher, RawHash};
use crate::table::Entry;

/// An entry of a publisher's table as it is sorted: hash, number of the block size, position of the slot, copies and node.
type SortedEntry = (EngineHash, SizeNumber, u8, u16, NodeId);

impl Core {
    /// The whole state. Equal states give equal bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.seed().to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        let names = self.publishers();
        out.extend_from_slice(&(names.len() as u32).to_le_bytes());
        for name in names {
            if let Some(id) = self.registry.id(&name) {
                self.write_publisher(&mut out, self.registry.get(id));
            }
        }
        let length = (out.len() - HEAD) as u64;
        out[HEAD - 8..HEAD].copy_from_slice(&length.to_le_bytes());
        let check = checksum(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    fn write_publisher(&self, out: &mut Vec<u8>, publisher: &Publisher) {
        write_text(out, &publisher.name);
        write_text(out, self.registry.model_name(publisher.model));
        write_groups(out, publisher);
        out.push(publisher.sizes.len() as u8);
        publisher.sizes.iter().for_each(|size| out.extend_from_slice(&size.to_le_bytes()));
        let positions = self.write_slots(out, publisher);
        let entries = publisher.table.iter();
        let sorted = |entry: &Entry| {
            (entry.id.hash(entry.size), entry.size, positions[entry.slot.index()], entry.copies, entry.node)
        };
        let mut entries: Vec<SortedEntry> = entries.map(sorted).collect();
        entries.sort_unstable();
        let is_one_block = |one: &SortedEntry, two: &SortedEntry| (one.0, one.1) == (two.0, two.1);
        let blocks = entries.chunk_by(is_one_block).count();
        out.extend_from_slice(&(blocks as u64).to_le_bytes());
        for held in entries.chunk_by(is_one_block) {
            let (hash, size, _, _, node) = held[0];
            out.extend_from_slice(&hash.0.to_le_bytes());
            out.push(size.0);
            self.write_content(out, publisher, hash.in_size(size), node);
            out.push(held.len() as u8);
            for &(_, _, position, copies, _) in held {
                out.push(position);
                out.extend_from_slice(&copies.to_le_bytes());
            }
        }
    }

    /// Write the slots in order, and return the position of each.
    fn write_slots(&self, out: &mut Vec<u8>, publisher: &Publisher) -> Vec<u8> {
        let (slots, media) = (&publisher.slots, &self.shared.media);
        let mut order: Vec<usize> = (0..slots.len()).collect();
        order.sort_by_key(|&at| (media.name(slots[at].medium), slots[at].group));
        let mut positions = vec![0; slots.len()];
        out.push(order.len() as u8);
        for (position, &slot) in order.iter().enumerate() {
            positions[slot] = position as u8;
            write_text(out, media.name(slots[slot].medium));
            out.extend_from_slice(&slots[slot].group.0.to_le_bytes());
        }
        positions
    }

    /// Write the form of a hash, its bytes if it came as bytes, and what is known of its content.
    fn write_content(&self, out: &mut Vec<u8>, publisher: &Publisher, id: BlockId, node: NodeId) {
        let raw = publisher.raw_hashes.get(&id);
        let orphan = publisher.orphans.get(&id);
        let parent = orphan.and_then(|orphan| orphan.parent.as_ref());
        let content = match (node, parent) {
            (NodeId::ORPHAN, Some(_)) => WAITS_FOR_PARENT,
            (NodeId::ORPHAN, None) => WAITS_FOR_TOKENS,
            _ => ATTACHED,
        };
        out.push(content | if raw.is_some() { RAW } else { 0 });
        if let Some(bytes) = raw {
            out.push(bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
        if node != NodeId::ORPHAN {
            let node = self.shared.nodes.get(node);
            out.extend_from_slice(&node.key.0.to_le_bytes());
            out.extend_from_slice(&node.parent_tag.to_le_bytes());
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

fn write_groups(out: &mut Vec<u8>, publisher: &Publisher) {
    let mut groups: Vec<&Group> = publisher.groups.iter().collect();
    groups.sort_by_key(|group| group.id);
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
