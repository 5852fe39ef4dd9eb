//! The snapshot, byte for byte that of `kvsync_indexer/core/snapshot.py`, where the layout is described.

use crate::core::{Core, Fault};
use crate::groups::{Attention, Group};
use crate::hash::checksum;
use crate::publisher::{Limits, Orphan, Spelled, MAX_BLOCK_SIZES, MAX_MEDIUM_CHARS, MAX_SLOTS};
use crate::table::ORPHAN;

const MAGIC: &[u8; 8] = b"KVSYNCIX";
const VERSION: u32 = 1;
const HEAD: usize = 32;
const NO_WINDOW: u64 = u64::MAX;

impl Core {
    pub fn snapshot(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        out.extend_from_slice(&self.shared.seed.to_le_bytes());
        out.extend_from_slice(&0u64.to_le_bytes());
        let names = self.names();
        out.extend_from_slice(&(names.len() as u32).to_le_bytes());
        for name in names {
            self.write_publisher(&mut out, &name);
        }
        let length = (out.len() - HEAD) as u64;
        out[24..32].copy_from_slice(&length.to_le_bytes());
        let check = checksum(&out);
        out.extend_from_slice(&check.to_le_bytes());
        out
    }

    fn write_publisher(&self, out: &mut Vec<u8>, name: &str) {
        let Ok(number) = self.find(name) else { return };
        let publisher = self.get(number);
        let media = &self.shared.media;
        write_text(out, name);
        write_text(out, &self.models[publisher.model as usize]);
        let mut groups: Vec<&Group> = publisher.groups.iter().collect();
        groups.sort_by_key(|group| group.name);
        out.extend_from_slice(&(groups.len() as u16).to_le_bytes());
        for group in groups {
            out.extend_from_slice(&group.name.to_le_bytes());
            out.push(group.attention as u8);
            out.extend_from_slice(&group.window.unwrap_or(NO_WINDOW).to_le_bytes());
            out.push(group.sizes.len() as u8);
            for size in &group.sizes {
                out.extend_from_slice(&size.to_le_bytes());
            }
        }
        let mut order: Vec<usize> = (0..publisher.slots.len()).collect();
        order.sort_by_key(|&at| (media.name(publisher.slots[at].medium), publisher.slots[at].group));
        let mut place = [0u8; 256];
        out.push(order.len() as u8);
        for (at, &slot) in order.iter().enumerate() {
            place[slot] = at as u8;
            write_text(out, media.name(publisher.slots[slot].medium));
            out.extend_from_slice(&publisher.slots[slot].group.to_le_bytes());
        }
        let mut rows: Vec<(u64, u8, u16, u32)> = publisher
            .table
            .iter()
            .map(|entry| (entry.hash, place[entry.slot as usize], entry.copies, entry.node))
            .collect();
        rows.sort_unstable();
        let hashes = rows.chunk_by(|one, two| one.0 == two.0).count();
        out.extend_from_slice(&(hashes as u64).to_le_bytes());
        for held in rows.chunk_by(|one, two| one.0 == two.0) {
            let (hash, _, _, node) = held[0];
            out.extend_from_slice(&hash.to_le_bytes());
            let spelled = publisher.spelled.get(&hash);
            let orphan = publisher.orphans.get(&hash);
            let waits = orphan.and_then(|orphan| orphan.parent.as_ref());
            let form = match (node, waits) {
                (ORPHAN, Some(_)) => 1,
                (ORPHAN, None) => 2,
                _ => 0,
            };
            out.push(form | if spelled.is_some() { 4 } else { 0 });
            if let Some(bytes) = spelled {
                out.push(bytes.len() as u8);
                out.extend_from_slice(bytes);
            }
            if node != ORPHAN {
                let node = self.shared.nodes.get(node);
                out.extend_from_slice(&node.key.to_le_bytes());
                out.extend_from_slice(&node.parent_tag.to_le_bytes());
            } else if let (Some(orphan), Some(parent)) = (orphan, waits) {
                out.extend_from_slice(&orphan.text.to_le_bytes());
                match parent {
                    Spelled::Number(key) => {
                        out.push(0);
                        out.extend_from_slice(&key.to_le_bytes());
                    }
                    Spelled::Bytes(bytes) => {
                        out.push(bytes.len() as u8);
                        out.extend_from_slice(bytes);
                    }
                }
            }
            out.push(held.len() as u8);
            for &(_, slot, copies, _) in held {
                out.push(slot);
                out.extend_from_slice(&copies.to_le_bytes());
            }
        }
    }

    /// A core as a snapshot describes it, under these limits.
    pub fn restored(data: &[u8], limits: Limits) -> Result<Core, Fault> {
        let bad = |reason: &str| Fault::Snapshot(reason.to_owned());
        if data.len() < HEAD + 8 {
            return Err(Fault::Snapshot(format!("snapshot of {} bytes is too short", data.len())));
        }
        if &data[..8] != MAGIC {
            return Err(bad("this is no index snapshot"));
        }
        let mut reader = Source { data, at: 8 };
        let version = reader.u32()?;
        if version != VERSION || reader.u32()? != 0 {
            return Err(Fault::Snapshot(format!("snapshot has version {version}; this is version {VERSION}")));
        }
        let seed = reader.u64()?;
        let length = reader.u64()?;
        let end = data.len() - 8;
        if length != (end - HEAD) as u64 {
            return Err(Fault::Snapshot(format!("snapshot of {} bytes should have another length", data.len())));
        }
        if checksum(&data[..end]).to_le_bytes() != data[end..] {
            return Err(bad("snapshot is damaged: its checksum does not fit"));
        }
        reader.data = &data[..end];
        let count = reader.u32()? as usize;
        if count > limits.max_publishers {
            return Err(Fault::Snapshot(format!(
                "snapshot holds {count} publishers, over the limit of {}",
                limits.max_publishers
            )));
        }
        let mut core = Core::new(limits, seed);
        for _ in 0..count {
            core.read_publisher(&mut reader)?;
        }
        require(reader.at == end, "end")?;
        Ok(core)
    }

    fn read_publisher(&mut self, reader: &mut Source) -> Result<(), Fault> {
        let (name, model) = (reader.text()?, reader.text()?);
        require(self.number(&name).is_none(), "repeat of a publisher")?;
        let number =
            self.add_publisher(&name, &model).map_err(|_| Fault::Snapshot("too many publishers".to_owned()))?;
        let limits = self.shared.limits;
        let publisher = self.publishers[number as usize].as_mut().expect("just added");
        for _ in 0..reader.u16()? {
            let group = read_group(reader)?;
            require(publisher.groups.iter().all(|known| known.name != group.name), "group")?;
            publisher.groups.push(group);
        }
        let slots = reader.byte()? as usize;
        require(slots <= MAX_SLOTS, "slot")?;
        for _ in 0..slots {
            let (medium, group) = (reader.text()?, reader.group()?);
            require(medium.chars().count() <= MAX_MEDIUM_CHARS, "slot")?;
            require(publisher.groups.iter().any(|known| known.name == group), "slot")?;
            let known = self.shared.media.intern(&medium);
            require(publisher.slots.iter().all(|slot| (slot.medium, slot.group) != (known, group)), "slot")?;
            publisher.add_slot(&mut self.shared, &medium, group);
        }
        let hashes = reader.u64()?;
        require(hashes <= limits.max_blocks as u64, "number of blocks")?;
        let mut last = None;
        let mut near = u32::MAX;
        for _ in 0..hashes {
            let hash = reader.u64()?;
            require(last.is_none_or(|last| last < hash), "order of hashes")?;
            last = Some(hash);
            let form = reader.byte()?;
            require(form & 3 != 3 && form < 8, "form of a hash")?;
            if form & 4 != 0 {
                let size = reader.byte()? as usize;
                require(size > 0, "hash")?;
                publisher.spelled.insert(hash, reader.raw(size)?.into());
            }
            if form & 3 == 0 {
                let (key, tag) = (reader.u64()?, reader.u32()?);
                let held = read_held(reader, slots)?;
                near = publisher.restore_attached(&mut self.shared, hash, key, tag, &held, near.wrapping_add(1));
                continue;
            }
            let mut orphan = Orphan::default();
            if form & 3 == 1 {
                orphan.text = reader.u64()?;
                let size = reader.byte()? as usize;
                orphan.parent = Some(if size == 0 {
                    Spelled::Number(reader.u64()?)
                } else {
                    Spelled::Bytes(reader.raw(size)?.into())
                });
            }
            let held = read_held(reader, slots)?;
            publisher.restore_orphan(&mut self.shared, hash, orphan, &held);
        }
        let fits = publisher.table.len() <= limits.max_blocks && publisher.orphans.len() <= limits.max_orphans;
        require(fits, "number of blocks")?;
        publisher.replan(&self.shared);
        Ok(())
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn require(condition: bool, what: &str) -> Result<(), Fault> {
    if condition {
        Ok(())
    } else {
        Err(Fault::Snapshot(format!("snapshot holds an impossible {what}")))
    }
}

fn read_group(reader: &mut Source) -> Result<Group, Fault> {
    let name = reader.group()?;
    let attention = reader.byte()?;
    let window = reader.u64()?;
    let count = reader.byte()? as usize;
    require(count <= MAX_BLOCK_SIZES, "group")?;
    let mut sizes = Vec::new();
    for _ in 0..count {
        sizes.push(reader.u32()?);
    }
    sizes.sort_unstable();
    sizes.dedup();
    require(sizes.len() == count && !sizes.contains(&0), "block size")?;
    let attention = Attention::from_number(attention)
        .ok_or_else(|| Fault::Snapshot("snapshot holds an impossible group".to_owned()))?;
    Ok(Group { name, attention, window: (window != NO_WINDOW).then_some(window), sizes })
}

fn read_held(reader: &mut Source, slots: usize) -> Result<Vec<(u8, u16)>, Fault> {
    let count = reader.byte()?;
    require(count > 0, "residency")?;
    let mut held: Vec<(u8, u16)> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (slot, copies) = (reader.byte()?, reader.u16()?);
        require((slot as usize) < slots && copies > 0, "residency")?;
        require(held.last().is_none_or(|last| last.0 < slot), "residency")?;
        held.push((slot, copies));
    }
    Ok(held)
}

struct Source<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    fn raw(&mut self, size: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(size).filter(|&end| end <= self.data.len());
        let end = end.ok_or_else(|| Fault::Snapshot("snapshot ends early".to_owned()))?;
        let part = &self.data[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.raw(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Fault> {
        Ok(u16::from_le_bytes(self.raw(2)?.try_into().unwrap()))
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.raw(4)?.try_into().unwrap()))
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.raw(8)?.try_into().unwrap()))
    }

    fn text(&mut self) -> Result<String, Fault> {
        let size = self.u32()? as usize;
        let text = std::str::from_utf8(self.raw(size)?);
        text.map(str::to_owned).map_err(|_| Fault::Snapshot("snapshot holds text that is no UTF-8".to_owned()))
    }

    fn group(&mut self) -> Result<i32, Fault> {
        let number = i32::from_le_bytes(self.raw(4)?.try_into().unwrap());
        require((-1..=65_535).contains(&number), "group")?;
        Ok(number)
    }
}
