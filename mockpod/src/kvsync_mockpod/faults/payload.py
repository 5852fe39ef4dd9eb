"""Faults in the payload of a batch."""

import dataclasses
import random
from collections.abc import Sequence

from kvsync_events import BlockStored, Event
from kvsync_mockpod.faults.spec import Corrupt, Fault, Oversize, Truncate

_BIN_32_HEADER = 5


def damage(payload: bytes, fault: Fault, chance: random.Random) -> bytes:
    """Apply a corrupt, truncate or oversize fault to a payload; other faults leave it unchanged."""
    if isinstance(fault, Corrupt):
        changed = bytearray(payload)
        for _ in range(fault.count if changed else 0):
            place = chance.randrange(len(changed))
            changed[place] ^= chance.randrange(1, 256)
        return bytes(changed)
    if isinstance(fault, Truncate):
        return payload[: len(payload) // 2 if fault.size is None else fault.size]
    if isinstance(fault, Oversize):
        return _grow(payload, fault.size)
    return payload


def _grow(payload: bytes, size: int) -> bytes:
    """Add one element (bytes) to the outer array, so that the batch becomes large and stays valid msgpack."""
    missing = size - len(payload) - _BIN_32_HEADER
    if missing <= 0:
        return payload
    elements = payload[0] & 0x0F
    return bytes([0x90 | elements + 1]) + payload[1:] + b"\xc6" + missing.to_bytes(4, "big") + bytes(missing)


def with_wrong_parents(events: Sequence[Event], chance: random.Random) -> list[Event]:
    """Copy events, giving each stored event a parent that does not exist."""
    return [_orphaned(event, chance) if isinstance(event, BlockStored) else event for event in events]


def _orphaned(event: BlockStored, chance: random.Random) -> BlockStored:
    size = next((len(block) for block in event.block_hashes if isinstance(block, bytes)), 8)
    return dataclasses.replace(event, parent_block_hash=chance.randbytes(size))
