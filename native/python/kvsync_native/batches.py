"""Encoding of decoded batches, because the compiled core reads nothing but payloads.

The map form is used, with every field that an event has: `AllBlocksCleared.medium` too, which no vLLM version sends.
"""

from dataclasses import fields
from typing import Any

import msgpack

from kvsync_events import BlockStored, Event, EventBatch

_MASK_64 = (1 << 64) - 1


def encode(batch: EventBatch) -> bytes:
    """The payload of a batch; events of unknown tags, of which a batch has only the number, are left out."""
    return bytes(msgpack.packb([batch.ts, [_event(event) for event in batch.events], batch.data_parallel_rank]))


def _event(event: Event) -> dict[str, Any]:
    encoded: dict[str, Any] = {"type": type(event).__name__}
    for each in fields(event):
        value = getattr(event, each.name)
        if value is not None:
            encoded[each.name] = value
    if "block_hashes" in encoded:
        encoded["block_hashes"] = [_hash(item) for item in encoded["block_hashes"]]
    if isinstance(event, BlockStored) and event.parent_block_hash is not None:
        encoded["parent_block_hash"] = _hash(event.parent_block_hash)
    return encoded


def _hash(item: int | bytes) -> int | bytes:
    return item & _MASK_64 if isinstance(item, int) else item
