"""Events to payload: exactly the bytes that one vLLM version sends.

vLLM encodes with msgspec, we with msgpack; both write every value in its shortest form, so equal structure is equal
bytes, with one exception. msgspec chooses the header of a map whose defaults are left out by the number of fields the
class *has*: with more than 15 (type included: BlockStored from 0.33) it is the long header, however few are written.
"""

from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from kvsync_events.errors import EncodeError
from kvsync_events.types import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventBatch
from kvsync_events.wireform import WireForm

_SHORT_MAP: Final = 15
"""Most pairs a one-byte map header counts."""


def encode_batch(batch: EventBatch, form: WireForm) -> bytes:
    """The payload of a batch; raw digests are turned into the form's hashes on the way.

    Raises EncodeError where vLLM fails as well, above all on a hash of more than 64 bits in the integer forms up to
    0.10.1: the publisher then loses the batch and has used up its sequence number.
    """
    shape = _map_event if form.map_events else _array_event
    packer = msgpack.Packer()
    try:
        parts = [packer.pack_array_header(3 if form.batch_rank else 2), packer.pack(float(batch.ts))]
        parts.append(packer.pack_array_header(len(batch.events)))
        parts.extend(shape(event, form, packer) for event in batch.events)
        if form.batch_rank:
            parts.append(packer.pack(batch.data_parallel_rank))
        return b"".join(parts)
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


def _array_event(event: Event, form: WireForm, packer: msgpack.Packer) -> bytes:
    """Tagged array of full length, nulls included (0.23 and older)."""
    if isinstance(event, AllBlocksCleared):
        return bytes(packer.pack(["AllBlocksCleared"]))
    tag, names, _ = _shape(event, form)
    return bytes(packer.pack([tag, *_values(event, names, form)]))


def _map_event(event: Event, form: WireForm, packer: msgpack.Packer) -> bytes:
    """Tagged map, type first, then field order; fields that have a default are left out when None (0.24 and newer)."""
    if isinstance(event, AllBlocksCleared):
        return bytes(packer.pack({"type": "AllBlocksCleared"}))
    tag, names, required = _shape(event, form)
    values = _values(event, names, form)
    pairs: dict[str, Any] = {"type": tag}
    for position, (name, value) in enumerate(zip(names, values, strict=True)):
        if position < required or value is not None:
            pairs[name] = value
    packed = bytes(packer.pack(pairs))
    if len(names) + 1 > _SHORT_MAP >= len(pairs):
        return b"\xde\x00" + bytes((len(pairs),)) + packed[1:]
    return packed
