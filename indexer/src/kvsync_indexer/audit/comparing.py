"""The comparison of two block tables: first the digests, then the blocks of the slots whose digests differ.

A slot is one tier and group of one publisher. The functions here are pure.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from kvsync_events import digest_key
from kvsync_indexer.api import DigestRow, SlotDifference
from kvsync_indexer.audit.engine import EngineBlock
from kvsync_indexer.core import BlockRow
from kvsync_indexer.core import DigestRow as IndexDigestRow
from kvsync_indexer.errors import AuditError

EXAMPLES = 5
"""Hashes that a difference lists for each side."""

SlotKey: TypeAlias = tuple[str, int | None]
"""Tier in upper case, and group."""
Digests: TypeAlias = Mapping[SlotKey, tuple[int, str]]
"""Number of blocks and digest in hex, per slot."""
SlotBlocks: TypeAlias = Mapping[SlotKey, Mapping[int, str]]
"""Per slot, the 64-bit key of each block and its hash as text."""


def index_digests(rows: Iterable[IndexDigestRow]) -> Digests:
    """The digests of the index."""
    return {(row.medium, row.group_idx): (row.count, row.digest_hex) for row in rows}


def engine_digests(rows: Iterable[DigestRow], rank: int) -> Digests:
    """The digests of one rank of an engine, without empty slots."""
    return {
        (row.medium.upper(), row.group_idx): (row.count, row.digest) for row in rows if row.rank == rank and row.count
    }


def differing_slots(mine: Digests, theirs: Digests) -> list[SlotKey]:
    """The slots whose digests differ, sorted."""
    slots = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
    return sorted(slots, key=lambda key: (key[0], -1 if key[1] is None else key[1]))


def index_blocks(rows: Iterable[BlockRow], slots: Iterable[SlotKey]) -> SlotBlocks:
    """The index's blocks in `slots`. Takes long for a large table: call it in a worker thread."""
    held: dict[SlotKey, dict[int, str]] = {key: {} for key in slots}
    for row in rows:
        slot = held.get((row.medium, row.group_idx))
        if slot is not None:
            slot[digest_key(row.hash)] = row.hash.hex() if isinstance(row.hash, bytes) else str(row.hash)
    return held


def engine_blocks(blocks: Iterable[EngineBlock], slots: Iterable[SlotKey]) -> SlotBlocks:
    """The engine's blocks in `slots`. Raises AuditError for a hash that is neither a number nor hex."""
    held: dict[SlotKey, dict[int, str]] = {key: {} for key in slots}
    for block in blocks:
        slot = held.get((block.medium.upper(), block.group_idx))
        if slot is not None:
            slot[_key_of(block.hash)] = str(block.hash)
    return held


def compare_slots(mine: SlotBlocks, theirs: SlotBlocks) -> list[SlotDifference]:
    """The blocks that only one side holds, for each slot of both."""
    return [_difference(key, theirs[key], mine[key]) for key in mine]


def _key_of(block_hash: int | str) -> int:
    """The 64 bits of a hash in JSON that count: of a number, or of the bytes that a hex string stands for."""
    try:
        return digest_key(block_hash if isinstance(block_hash, int) else bytes.fromhex(block_hash))
    except ValueError:
        raise AuditError(f"the engine names a block {block_hash!r:.80}, which is neither a number nor hex") from None


def _difference(key: SlotKey, theirs: Mapping[int, str], mine: Mapping[int, str]) -> SlotDifference:
    missing = sorted(theirs.keys() - mine.keys())
    extra = sorted(mine.keys() - theirs.keys())
    return SlotDifference(
        medium=key[0],
        group_idx=key[1],
        engine_blocks=len(theirs),
        index_blocks=len(mine),
        missing=len(missing),
        extra=len(extra),
        missing_examples=[theirs[each] for each in missing[:EXAMPLES]],
        extra_examples=[mine[each] for each in extra[:EXAMPLES]],
    )
