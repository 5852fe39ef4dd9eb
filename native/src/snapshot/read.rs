//! Reading a snapshot. Everything is checked while it is read, and nothing is restored if anything is wrong.

use super::{ATTACHED, CONTENT, HEAD, MAGIC, NO_WINDOW, RAW, VERSION, WAITS_FOR_PARENT};
use crate::core::Core;
use crate::error::CoreError;
use crate::groups::{Attention, Group};
use crate::hash::checksum;
use crate::ids::{EngineHash, GroupId, LocalHash, NodeId, PrefixKey, SizeNumber, SlotId};
use crate::limits::{Limits, MAX_BLOCK_SIZES, MAX_CHAIN_SIZES, MAX_MEDIUM_CHARS, MAX_SLOTS};
use crate::publisher::{Orphan, Publisher, RawHash, Slot};
use crate::shared::Shared;

impl Core {
    /// A core in the state that a snapshot describes, under these limits.
    pub fn restored(data: &[u8], limits: Limits) -> Result<Core, CoreError> {
        let (mut source, seed) = open(data)?;
        let count = source.u32()? as usize;
        if count > limits.max_publishers {
            let message = format!("snapshot holds {count} publishers, over the limit of {}", limits.max_publishers);
            return Err(CoreError::snapshot(message));
        }
        let mut core = Core::new(limits, seed);
        for _ in 0..count {
            core.read_publisher(&mut source)?;
        }
        require(source.at == source.data.len(), "end")?;
        Ok(core)
    }

    fn read_publisher(&mut self, source: &mut Source) -> Result<(), CoreError> {
        let (name, model) = (source.text()?, source.text()?);
        require(self.registry.id(&name).is_none(), "repeat of a publisher")?;
        let id = self.add_publisher(&name, &model).map_err(|_| CoreError::snapshot("too many publishers"))?;
        let (publisher, _) = self.registry.get_mut(id);
        for _ in 0..source.u16()? {
            let group = read_group(source)?;
            require(publisher.groups.iter().all(|known| known.id != group.id), "group")?;
            publisher.groups.push(group);
        }
        read_sizes(source, publisher)?;
        read_slots(source, publisher, &mut self.shared)?;
        read_blocks(source, publisher, &mut self.shared)?;
        publisher.make_plan(&self.shared.media);
        Ok(())
    }
}

/// Check header and checksum; returns a source of the body, and the seed.
fn open(data: &[u8]) -> Result<(Source<'_>, u64), CoreError> {
    if data.len() < HEAD + 8 {
        return Err(CoreError::snapshot(format!("snapshot of {} bytes is too short", data.len())));
    }
    if &data[..8] != MAGIC {
        return Err(CoreError::snapshot("this is not an index snapshot"));
    }
    let mut source = Source { data, at: 8 };
    let version = source.u32()?;
    if version != VERSION || source.u32()? != 0 {
        let message = format!("snapshot has version {version}; this is version {VERSION}");
        return Err(CoreError::snapshot(message));
    }
    let (seed, length) = (source.u64()?, source.u64()?);
    let end = data.len() - 8;
    if length != (end - HEAD) as u64 {
        let expected = length.saturating_add(HEAD as u64 + 8);
        let message = format!("snapshot of {} bytes should have {expected}", data.len());
        return Err(CoreError::snapshot(message));
    }
    if checksum(&data[..end]).to_le_bytes() != data[end..] {
        return Err(CoreError::snapshot("snapshot is damaged: its checksum does not fit"));
    }
    source.data = &data[..end];
    Ok((source, seed))
}

fn read_group(source: &mut Source) -> Result<Group, CoreError> {
    let id = source.group()?;
    let attention = Attention::from_number(source.byte()?).ok_or_else(|| impossible("group"))?;
    let window = source.u64()?;
    let count = source.byte()? as usize;
    require(count <= MAX_BLOCK_SIZES, "group")?;
    let mut sizes = Vec::new();
    for _ in 0..count {
        sizes.push(source.u32()?);
    }
    sizes.sort_unstable();
    sizes.dedup();
    require(sizes.len() == count && !sizes.contains(&0), "block size")?;
    Ok(Group { id, attention, window: (window != NO_WINDOW).then_some(window), sizes })
}

/// Read the numbers of block sizes; every size of a group must have one, and each belongs to a group.
fn read_sizes(source: &mut Source, publisher: &mut Publisher) -> Result<(), CoreError> {
    for _ in 0..source.byte()? {
        publisher.sizes.push(source.u32()?);
    }
    let mut known: Vec<u32> = publisher.groups.iter().flat_map(|group| group.sizes.iter().copied()).collect();
    known.sort_unstable();
    known.dedup();
    let mut numbered = publisher.sizes.clone();
    numbered.sort_unstable();
    require(numbered.len() <= MAX_CHAIN_SIZES && numbered == known, "block size")
}

fn read_slots(source: &mut Source, publisher: &mut Publisher, shared: &mut Shared) -> Result<(), CoreError> {
    let slots = source.byte()? as usize;
    require(slots <= MAX_SLOTS, "slot")?;
    for _ in 0..slots {
        let (medium, group) = (source.text()?, source.group()?);
        require(medium.chars().count() <= MAX_MEDIUM_CHARS, "slot")?;
        require(publisher.groups.iter().any(|known| known.id == group), "slot")?;
        let is_same = |slot: &Slot| slot.group == group && shared.media.name(slot.medium) == medium;
        require(!publisher.slots.iter().any(is_same), "slot")?;
        publisher.add_slot(shared, &medium, group);
    }
    Ok(())
}

fn read_blocks(source: &mut Source, publisher: &mut Publisher, shared: &mut Shared) -> Result<(), CoreError> {
    let limits = shared.limits;
    let hashes = source.u64()?;
    require(hashes <= limits.max_blocks as u64, "number of blocks")?;
    let (mut last, mut hint) = (None, NodeId::NO_HINT);
    for _ in 0..hashes {
        let (hash, size) = (EngineHash(source.u64()?), SizeNumber(source.byte()?));
        require(last.is_none_or(|last| last < (hash, size)), "order of hashes")?;
        last = Some((hash, size));
        require(size.index() < publisher.sizes.len().max(1), "block size")?;
        let id = hash.in_size(size);
        require(publisher.table.find_any(id).is_none(), "hash")?;
        let form = source.byte()?;
        require(form & CONTENT != CONTENT && form < 2 * RAW, "form of a hash")?;
        if form & RAW != 0 {
            let size = source.byte()? as usize;
            require(size > 0, "hash")?;
            publisher.raw_hashes.insert(id, source.raw(size)?.into());
        }
        if form & CONTENT == ATTACHED {
            let content = (PrefixKey(source.u64()?), source.u32()?);
            let held = read_held(source, publisher.slots.len())?;
            hint = publisher.restore_attached(shared, (id, size), content, &held, hint).next();
        } else {
            let orphan = read_orphan(source, form & CONTENT, size)?;
            let held = read_held(source, publisher.slots.len())?;
            publisher.restore_orphan(shared, id, orphan, &held);
        }
    }
    let fits = publisher.table.len() <= limits.max_blocks && publisher.orphans.len() <= limits.max_orphans;
    require(fits, "number of blocks")
}

fn read_orphan(source: &mut Source, content: u8, size: SizeNumber) -> Result<Orphan, CoreError> {
    if content != WAITS_FOR_PARENT {
        return Ok(Orphan::without_tokens(size));
    }
    let local_hash = LocalHash(source.u64()?);
    let parent = match source.byte()? as usize {
        0 => RawHash::Number(EngineHash(source.u64()?)),
        size => RawHash::Bytes(source.raw(size)?.into()),
    };
    Ok(Orphan { size, local_hash, parent: Some(parent) })
}

fn read_held(source: &mut Source, slots: usize) -> Result<Vec<(SlotId, u16)>, CoreError> {
    let count = source.byte()?;
    require(count > 0, "residency")?;
    let mut held: Vec<(SlotId, u16)> = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let (slot, copies) = (SlotId(source.byte()?), source.u16()?);
        require(slot.index() < slots && copies > 0, "residency")?;
        require(held.last().is_none_or(|last| last.0 < slot), "residency")?;
        held.push((slot, copies));
    }
    Ok(held)
}

fn impossible(what: &str) -> CoreError {
    CoreError::snapshot(format!("snapshot holds an impossible {what}"))
}

fn require(condition: bool, what: &str) -> Result<(), CoreError> {
    if condition {
        Ok(())
    } else {
        Err(impossible(what))
    }
}

/// The bytes of a snapshot, read in order.
struct Source<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    fn raw(&mut self, size: usize) -> Result<&'a [u8], CoreError> {
        let end = self.at.checked_add(size).filter(|&end| end <= self.data.len());
        let end = end.ok_or_else(|| CoreError::snapshot("snapshot ends early"))?;
        let part = &self.data[self.at..end];
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CoreError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.raw(N)?);
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, CoreError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, CoreError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, CoreError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, CoreError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn text(&mut self) -> Result<String, CoreError> {
        let size = self.u32()? as usize;
        let text = std::str::from_utf8(self.raw(size)?);
        text.map(str::to_owned).map_err(|_| CoreError::snapshot("snapshot holds text that is not UTF-8"))
    }

    fn group(&mut self) -> Result<GroupId, CoreError> {
        let number = i32::from_le_bytes(self.array()?);
        require((-1..=65_535).contains(&number), "group")?;
        Ok(GroupId(number))
    }
}
