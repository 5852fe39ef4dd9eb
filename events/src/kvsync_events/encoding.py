"""Events to payload: exactly the bytes that one vLLM version sends.

vLLM encodes with msgspec, we with msgpack; both write every value in its shortest form, so equal structure is equal
bytes. The structure per version is the WireForm's.
"""

from typing import Any

import msgpack  # type: ignore[import-untyped]

from kvsync_events.errors import EncodeError
from kvsync_events.types import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventBatch
from kvsync_events.wireform import WireForm


def encode_batch(batch: EventBatch, form: WireForm) -> bytes:
    """The payload of a batch; raw digests are turned into the form's hashes on the way.

    Raises EncodeError where vLLM fails as well, above all on a hash of more than 64 bits in the integer forms up to
    0.10.1: the publisher then loses the batch and has used up its sequence number.
    """
    if form.map_events:
        events: list[Any] = [_map_event(event, form) for event in batch.events]
    else:
        events = [_array_event(event, form) for event in batch.events]
    whole = [float(batch.ts), events]
    if form.batch_rank:
        whole.append(batch.data_parallel_rank)
    try:
        return bytes(msgpack.packb(whole))
    except (OverflowError, TypeError, ValueError) as error:
        raise EncodeError(f"batch cannot be sent as vLLM {form.version}: {error}") from None


def _values(event: BlockStored | BlockRemoved, names: tuple[str, ...], form: WireForm) -> list[Any]:
    """The fields in wire order, hashes converted."""
    values = [getattr(event, name) for name in names]
    wire_hash = form.wire_hash
    values[0] = [wire_hash(item) for item in values[0]]
    if isinstance(event, BlockStored) and values[1] is not None:
        values[1] = wire_hash(values[1])
    return values


def _shape(event: BlockStored | BlockRemoved, form: WireForm) -> tuple[str, tuple[str, ...], int]:
    if isinstance(event, BlockStored):
        return "BlockStored", form.stored_fields, form.stored_required
    return "BlockRemoved", form.removed_fields, form.removed_required


def _array_event(event: Event, form: WireForm) -> list[Any]:
    """Tagged array of full length, nulls included (0.23 and older)."""
    if isinstance(event, AllBlocksCleared):
        return ["AllBlocksCleared"]
    tag, names, _ = _shape(event, form)
    return [tag, *_values(event, names, form)]


def _map_event(event: Event, form: WireForm) -> dict[str, Any]:
    """Tagged map, type first, then field order; fields that have a default are left out when None (0.24 and newer)."""
    if isinstance(event, AllBlocksCleared):
        return {"type": "AllBlocksCleared"}
    tag, names, required = _shape(event, form)
    values = _values(event, names, form)
    encoded: dict[str, Any] = {"type": tag}
    for position, (name, value) in enumerate(zip(names, values, strict=True)):
        if position < required or value is not None:
            encoded[name] = value
    return encoded
