"""Events to payload: exactly the bytes that one vLLM version sends.

vLLM and we encode with msgspec, which writes every value in its shortest form, so equal structure is equal bytes, with
one exception: for a class whose defaults are left out it chooses the header of the map by the number of fields the
class *has*: with more than 15 (type included: BlockStored from 0.33) it is the long header, however few are written.
"""

from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from kvsync_events.errors import EncodeError
from kvsync_events.types import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventBatch
from kvsync_events.wireform import WireForm

_SHORT_MAP: Final = 15
"""Most pairs a one-byte map header counts."""

_encode = msgspec.msgpack.Encoder().encode


def encode_batch(batch: EventBatch, form: WireForm) -> bytes:
    """The payload of a batch; raw digests are turned into the form's hashes on the way.

    Raises EncodeError where vLLM fails as well, above all on a hash of more than 64 bits in the integer forms up to
    0.10.1: the publisher then loses the batch and has used up its sequence number.
    """
    shape = _map_event if form.map_events else _array_event
    try:
        fields: list[Any] = [float(batch.ts), [shape(event, form) for event in batch.events]]
        if form.batch_rank:
            fields.append(batch.data_parallel_rank)
        return _encode(fields)
    except (OverflowError, TypeError, ValueError) as error:
        raise EncodeError(f"batch cannot be sent as vLLM {form.version}: {error}") from None


def _values(event: BlockStored | BlockRemoved, names: tuple[str, ...], form: WireForm) -> list[Any]:
    """The fields in wire order, hashes converted."""
    values = list(_getter(names)(event)) if len(names) > 1 else [getattr(event, names[0])]
    wire_hash = form.wire_hash
    values[0] = [item if isinstance(item, int) else wire_hash(item) for item in values[0]]
    if isinstance(event, BlockStored) and values[1] is not None:
        values[1] = wire_hash(values[1])
    return values


@lru_cache(maxsize=256)
def _getter(names: tuple[str, ...]) -> "attrgetter[tuple[Any, ...]]":
    return attrgetter(*names)


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


def _map_event(event: Event, form: WireForm) -> dict[str, Any] | msgspec.Raw:
    """Tagged map, type first, then field order; fields that have a default are left out when None (0.24 and newer)."""
    if isinstance(event, AllBlocksCleared):
        return {"type": "AllBlocksCleared"}
    tag, names, required = _shape(event, form)
    pairs: dict[str, Any] = {"type": tag}
    for position, (name, value) in enumerate(zip(names, _values(event, names, form), strict=True)):
        if position < required or value is not None:
            pairs[name] = value
    if len(names) + 1 > _SHORT_MAP >= len(pairs):
        return msgspec.Raw(b"\xde\x00" + bytes((len(pairs),)) + _encode(pairs)[1:])
    return pairs
