"""Encodes batches to exactly the bytes that one vLLM version sends.

Both vLLM and this module encode with msgspec, which writes every value in its shortest form, so that equal structures
give equal bytes. There is one exception. For a class that omits defaults, msgspec chooses the header of the map by the
number of fields that the class has, not by the number that is written. With more than 15 fields including the type,
which `BlockStored` has from 0.33 on, it writes the long header.
"""

from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

import msgspec

from kvsync_events.errors import EncodeError
from kvsync_events.types import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventBatch
from kvsync_events.wireform import WireForm

_SHORT_MAP: Final = 15
"""The largest number of pairs that a one-byte map header can count."""

_encode = msgspec.msgpack.Encoder().encode


def encode_batch(batch: EventBatch, form: WireForm) -> bytes:
    """Return the payload of a batch. Raw digests are converted to the hashes of the form.

    Raises:
        EncodeError: vLLM cannot encode the batch either, for example because a hash has more than 64 bits in the
            integer forms up to 0.10.1. A publisher then loses the batch, and its sequence number stays used.
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
    """Return the fields in wire order, with converted hashes."""
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
    """Return the tagged array that 0.23 and older send: full length, with nulls."""
    if isinstance(event, AllBlocksCleared):
        return ["AllBlocksCleared"]
    tag, names, _ = _shape(event, form)
    return [tag, *_values(event, names, form)]


def _map_event(event: Event, form: WireForm) -> dict[str, Any] | msgspec.Raw:
    """Return the tagged map that 0.24 and newer send: the type, then the fields in order, without optional None."""
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
