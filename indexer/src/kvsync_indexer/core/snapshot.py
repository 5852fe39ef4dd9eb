"""The snapshot: the whole state of a core as bytes, the same bytes from either implementation.

The layout is little-endian: magic `KVSYNCIX`, u32 version, u32 zero, u64 seed, u64 length of the body; the body; u64
XXH3-64 (seed 0) of everything before. The body starts with the number of publishers (u32). They are sorted by name (as
UTF-8), and each consists of

    text name, text model                                text = u32 length, UTF-8
    u16 groups, sorted: i32 group (-1 none), u8 attention, u64 window (2^64-1 none), u8 sizes, sorted u32 each
    u8 block sizes, in the order of their numbers: u32 each
    u8 slots, sorted:   text medium, i32 group
    u64 blocks, sorted: u64 engine hash, u8 number of the block size, u8 form, [u8 length, raw hash], content, u8 held,
                        each: u8 slot, u16 copies
        form & 3: 0 attached: u64 prefix key, u32 tag of the parent's key
                  1 waits for its parent: u64 local hash, then u8 0, u64 parent or u8 length, raw hash of the parent
                  2 waits for its tokens: nothing
        form & 4: the hash came as bytes

Everything is checked while it is read, and a damaged or foreign snapshot is refused as a whole.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from xxhash import xxh3_64_intdigest

from kvsync_events import Hash
from kvsync_indexer.core.blocks import Block, block_id
from kvsync_indexer.core.errors import SnapshotError
from kvsync_indexer.core.groups import Attention, Group, Slot, group_order
from kvsync_indexer.core.protocol import MAX_BLOCK_SIZES, MAX_CHAIN_SIZES, MAX_MEDIUM_CHARS, MAX_SLOTS, CoreLimits
from kvsync_indexer.core.publisher import Publisher

MAGIC: Final = b"KVSYNCIX"
VERSION: Final = 2
_HEAD: Final = struct.Struct("<8sIIQQ")
_U64: Final = struct.Struct("<Q")
_U32: Final = struct.Struct("<I")
_GROUP: Final = struct.Struct("<iBQB")
_ATTACHED: Final = struct.Struct("<QI")
_HELD: Final = struct.Struct("<BH")
_NO_WINDOW: Final = (1 << 64) - 1


def write_snapshot(publishers: dict[str, Publisher], seed: int) -> bytes:
    """A snapshot of these publishers."""
    return join_snapshot(seed, [snapshot_part(publishers[name]) for name in sorted(publishers, key=str.encode)])


def join_snapshot(seed: int, parts: Sequence[bytes]) -> bytes:
    """A snapshot of the publishers whose parts these are, in the order of their names as UTF-8."""
    body = b"".join((_U32.pack(len(parts)), *parts))
    whole = _HEAD.pack(MAGIC, VERSION, 0, seed & (1 << 64) - 1, len(body)) + body
    return whole + _U64.pack(xxh3_64_intdigest(whole))


def snapshot_part(publisher: Publisher) -> bytes:
    """One publisher's part of a snapshot."""
    out = bytearray()
    _write_text(out, publisher.name)
    _write_text(out, publisher.model)
    out += struct.pack("<H", len(publisher.slots.groups))
    for name, group in sorted(publisher.slots.groups.items(), key=lambda item: group_order(item[0])):
        window = _NO_WINDOW if group.window is None else group.window
        out += _GROUP.pack(group_order(name), group.attention, window, len(group.sizes))
        for size in sorted(group.sizes):
            out += _U32.pack(size)
    out.append(len(publisher.slots.sizes))
    for size in publisher.slots.sizes:
        out += _U32.pack(size)
    order = sorted(range(len(publisher.slots)), key=lambda at: _slot_order(publisher.slots.by_number[at]))
    position = {slot: at for at, slot in enumerate(order)}
    out.append(len(order))
    for slot in order:
        medium, group_idx = publisher.slots.by_number[slot]
        _write_text(out, medium)
        out += struct.pack("<i", group_order(group_idx))
    out += _U64.pack(len(publisher.blocks))
    for hashed, number, ident in sorted_blocks(publisher):
        block = publisher.blocks[ident]
        out += _U64.pack(hashed)
        out.append(number)
        _write_content(out, block, publisher.raw_hashes.get(ident))
        out.append(len(block.copies))
        for at, copies in sorted((position[slot], copies) for slot, copies in block.copies.items()):
            out += _HELD.pack(at, copies)
    return bytes(out)


def sorted_blocks(publisher: Publisher) -> list[tuple[int, int, int]]:
    """Engine hash, number of the block size, and id of every block, sorted."""
    numbers = ((block.size_number, ident) for ident, block in publisher.blocks.items())
    return sorted((block_id(ident, number), number, ident) for number, ident in numbers)


def _slot_order(slot: Slot) -> tuple[bytes, int]:
    return slot[0].encode(), group_order(slot[1])


def _write_text(out: bytearray, text: str) -> None:
    encoded = text.encode()
    out += _U32.pack(len(encoded))
    out += encoded


def _write_content(out: bytearray, block: Block, raw_hash: bytes | None) -> None:
    form = 0 if block.prefix_key is not None else 1 if block.local_hash is not None else 2
    out.append(form | (4 if raw_hash is not None else 0))
    if raw_hash is not None:
        out.append(len(raw_hash))
        out += raw_hash
    if block.prefix_key is not None:
        out += _ATTACHED.pack(block.prefix_key, block.parent_tag)
    elif block.local_hash is not None:
        out += _U64.pack(block.local_hash)
        if isinstance(block.parent, bytes):
            out.append(len(block.parent))
            out += block.parent
        else:
            assert block.parent is not None
            out.append(0)
            out += _U64.pack(block.parent & (1 << 64) - 1)


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def take(self, layout: struct.Struct) -> tuple[int, ...]:
        return layout.unpack(self.raw(layout.size))

    def raw(self, size: int) -> bytes:
        part = self._data[self.at : self.at + size]
        if len(part) != size:
            raise SnapshotError("snapshot ends early")
        self.at += size
        return part

    def byte(self) -> int:
        return self.raw(1)[0]

    def u64(self) -> int:
        return self.take(_U64)[0]

    def u32(self) -> int:
        return self.take(_U32)[0]

    def text(self) -> str:
        try:
            return self.raw(self.u32()).decode()
        except UnicodeDecodeError:
            raise SnapshotError("snapshot holds text that is not UTF-8") from None

    def group(self) -> int | None:
        number = int.from_bytes(self.raw(4), "little", signed=True)
        _require(-1 <= number <= 65_535, "group")
        return None if number < 0 else number


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise SnapshotError(f"snapshot holds an impossible {what}")


def read_snapshot(data: bytes, limits: CoreLimits) -> tuple[dict[str, Publisher], int]:
    """The publishers and the seed of a snapshot; raises SnapshotError."""
    data = bytes(data)
    if len(data) < _HEAD.size + _U64.size:
        raise SnapshotError(f"snapshot of {len(data)} bytes is too short")
    magic, version, zero, seed, length = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise SnapshotError("this is not an index snapshot")
    if version != VERSION or zero:
        raise SnapshotError(f"snapshot has version {version}; this is version {VERSION}")
    end = len(data) - _U64.size
    if length != end - _HEAD.size:
        raise SnapshotError(f"snapshot of {len(data)} bytes should have {length + _HEAD.size + _U64.size}")
    if xxh3_64_intdigest(memoryview(data)[:end]) != _U64.unpack_from(data, end)[0]:
        raise SnapshotError("snapshot is damaged: its checksum does not fit")
    reader = _Reader(data, _HEAD.size)
    count = reader.u32()
    if count > limits.max_publishers:
        raise SnapshotError(f"snapshot holds {count} publishers, over the limit of {limits.max_publishers}")
    publishers: dict[str, Publisher] = {}
    for _ in range(count):
        publisher = _read_publisher(reader, seed, limits)
        _require(publisher.name not in publishers, "repeat of a publisher")
        publishers[publisher.name] = publisher
    _require(reader.at == end, "end")
    return publishers, seed


def _read_publisher(reader: _Reader, seed: int, limits: CoreLimits) -> Publisher:
    publisher = Publisher(reader.text(), reader.text(), seed, limits)
    for _ in range(int.from_bytes(reader.raw(2), "little")):
        group_idx = reader.group()
        attention, window, sizes = struct.unpack("<BQB", reader.raw(10))
        _require(attention <= 2 and sizes <= MAX_BLOCK_SIZES and group_idx not in publisher.slots.groups, "group")
        group = Group(Attention(attention), None if window == _NO_WINDOW else window)
        group.sizes.update(reader.u32() for _ in range(sizes))
        _require(len(group.sizes) == sizes and 0 not in group.sizes, "block size")
        publisher.slots.groups[group_idx] = group
    _read_sizes(reader, publisher)
    for at in range(reader.byte()):
        medium, group_idx = reader.text(), reader.group()
        _require(len(medium) <= MAX_MEDIUM_CHARS and group_idx in publisher.slots.groups and at < MAX_SLOTS, "slot")
        _require(publisher.slots.add(medium, group_idx) == len(publisher.slots) - 1 == at, "slot")
    _require(len(set(publisher.slots.by_number)) == len(publisher.slots), "slot")
    hashes = reader.u64()
    if hashes > limits.max_blocks:
        raise SnapshotError(
            f"snapshot holds {hashes} blocks of {publisher.name}, over the limit of {limits.max_blocks}"
        )
    last = (-1, 0)
    for _ in range(hashes):
        hashed, number = reader.u64(), reader.byte()
        _require((hashed, number) > last, "order of hashes")
        last = hashed, number
        _require(number < max(1, len(publisher.slots.sizes)), "block size")
        ident = block_id(hashed, number)
        _require(ident not in publisher.blocks, "hash")
        block, raw_hash = _read_block(reader, number)
        publisher.restore_block(ident, block, raw_hash, _read_held(reader, len(publisher.slots)))
    _require(publisher.rows <= limits.max_blocks and publisher.orphans.count <= limits.max_orphans, "number of blocks")
    return publisher


def _read_sizes(reader: _Reader, publisher: Publisher) -> None:
    """Read the numbers of block sizes; every size of a group must have one, and each belongs to a group."""
    slots = publisher.slots
    slots.sizes = [reader.u32() for _ in range(reader.byte())]
    known = {size for group in slots.groups.values() for size in group.sizes}
    _require(len(slots.sizes) <= MAX_CHAIN_SIZES and sorted(slots.sizes) == sorted(known), "block size")


def _read_block(reader: _Reader, number: int) -> tuple[Block, bytes | None]:
    form = reader.byte()
    _require(form & 3 != 3 and form < 8, "form of a hash")
    raw_hash = None
    if form & 4:
        size = reader.byte()
        _require(size > 0, "hash")
        raw_hash = reader.raw(size)
    if form & 3 == 0:
        key, tag = reader.take(_ATTACHED)
        return Block(number, key, tag, None, None), raw_hash
    if form & 3 == 2:
        return Block(number, None, 0, None, None), raw_hash
    local_hash, size = reader.u64(), reader.byte()
    parent: Hash = reader.raw(size) if size else reader.u64()
    return Block(number, None, 0, local_hash, parent), raw_hash


def _read_held(reader: _Reader, slots: int) -> Iterable[tuple[int, int]]:
    held = [reader.take(_HELD) for _ in range(reader.byte())]
    _require(bool(held) and all(slot < slots and copies for slot, copies in held), "residency")
    _require(all(one[0] < two[0] for one, two in pairwise(held)), "residency")
    return [(slot, copies) for slot, copies in held]
