"""The comparison of two block tables: first the digests of the hashes, then the blocks.

A slot is one tier and group of one publisher. Equal digests say that both sides hold the same hashes. They do not say
what the index takes the blocks for, which is compared by prefix keys (`content`). The functions here are pure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from kvsync_events import digest_key
from kvsync_indexer.api import DigestRow, SlotDifference
from kvsync_indexer.audit.content import BlockKey, expected_keys
from kvsync_indexer.audit.engine import EngineBlock, hash_key
from kvsync_indexer.core import BlockRow, QueryError
from kvsync_indexer.core import DigestRow as IndexDigestRow
from kvsync_indexer.errors import AuditError

EXAMPLES = 5
"""Hashes that a difference lists for each side."""

SlotKey: TypeAlias = tuple[str, int | None]
"""Tier in upper case, and group."""
Digests: TypeAlias = Mapping[SlotKey, tuple[int, str]]
"""Number of blocks and digest in hex, per slot."""


class _Held(NamedTuple):
    """A block of the engine."""

    shown: str
    """Its hash as the engine shows it."""
    size: int
    """Number of its tokens, 0 if the engine does not list them."""


@dataclass(slots=True)
class Comparison:
    """What the comparison of two tables found."""

    slots: list[SlotDifference] = field(default_factory=list)
    """The slots in which anything differs."""
    compared: int = 0
    """Blocks of both sides whose content the engine reports."""


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
    return sorted(slots, key=_order)


def compare_blocks(
    mine: Iterable[BlockRow], theirs: Iterable[EngineBlock], slots: Collection[SlotKey], *, model: str, seed: int
) -> Comparison:
    """Compare the hashes of these slots, and the content of every block that both sides hold.

    Takes long for a large table: call it in a worker thread. Raises AuditError for a table that makes no sense.
    """
    engine, told = _engine_tables(theirs, model, seed)
    index = _index_tables(mine)
    found = Comparison()
    for slot in sorted(engine.keys() | index.keys() | set(slots), key=_order):
        held, known = engine.get(slot, {}), index.get(slot, {})
        other = [key for key in held.keys() & known.keys() if _differs(known[key], told.get((key, held[key].size)))]
        found.compared += sum(1 for key in held.keys() & known.keys() if (key, held[key].size) in told)
        if slot in slots or other:
            found.slots.append(_difference(slot, held, known, sorted(other), hashes=slot in slots))
    return found


def _order(slot: SlotKey) -> tuple[str, int]:
    return slot[0], -1 if slot[1] is None else slot[1]


def _engine_tables(
    blocks: Iterable[EngineBlock], model: str, seed: int
) -> tuple[dict[SlotKey, dict[int, _Held]], Mapping[BlockKey, Collection[int]]]:
    """The engine's blocks by slot and hash, and the prefix keys that their content implies."""
    listed = list(blocks)
    held: dict[SlotKey, dict[int, _Held]] = {}
    for block in listed:
        one = _Held(str(block.hash), len(block.token_ids or ()))
        held.setdefault((block.medium.upper(), block.group_idx), {})[hash_key(block.hash)] = one
    try:
        return held, expected_keys(listed, model, seed)
    except QueryError as error:
        raise AuditError(f"the engine lists extra keys that make no sense: {error}") from None


def _index_tables(rows: Iterable[BlockRow]) -> dict[SlotKey, dict[int, BlockRow]]:
    held: dict[SlotKey, dict[int, BlockRow]] = {}
    for row in rows:
        held.setdefault((row.medium, row.group_idx), {})[digest_key(row.hash)] = row
    return held


def _differs(row: BlockRow, keys: Collection[int] | None) -> bool:
    """Whether the index takes the block for another one. A block that waits is never matched, whatever it is."""
    return keys is not None and row.key is not None and row.key not in keys


def _difference(
    slot: SlotKey, theirs: Mapping[int, _Held], mine: Mapping[int, BlockRow], other: Sequence[int], *, hashes: bool
) -> SlotDifference:
    missing = sorted(theirs.keys() - mine.keys()) if hashes else []
    extra = sorted(mine.keys() - theirs.keys()) if hashes else []
    return SlotDifference(
        medium=slot[0],
        group_idx=slot[1],
        engine_blocks=len(theirs),
        index_blocks=len(mine),
        missing=len(missing),
        extra=len(extra),
        missing_examples=[theirs[each].shown for each in missing[:EXAMPLES]],
        extra_examples=[_shown(mine[each]) for each in extra[:EXAMPLES]],
        other_content=len(other),
        other_content_examples=[theirs[each].shown for each in other[:EXAMPLES]],
    )


def _shown(row: BlockRow) -> str:
    return row.hash.hex() if isinstance(row.hash, bytes) else str(row.hash)
