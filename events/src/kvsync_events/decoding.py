"""Decodes payloads of every form that vLLM, SGLang and TensorRT-LLM send.

A reader does not need to know the version of the publisher. A batch may mix array and map events. Missing trailing or
optional fields become None, and unknown fields and extra elements are ignored. Other engines deviate from vLLM as
follows:

- An event with an unknown tag is left out and counted in `EventBatch.unknown_events`.
- Token ids that are not plain 32-bit integers (SGLang's bigram pairs, TensorRT-LLM's strings) describe a block that
  cannot be matched. Its hashes are kept, `token_ids` is empty, and `EventBatch.opaque_tokens` counts the event.
- SGLang puts `cache_salt` on the event. It becomes what vLLM sends, an extra key of the first block of the chain.
- SGLang puts a metadata map in the place of `lora_name`. It is ignored.
- An extra key that is a map is opaque: it becomes the bytes of `canonical`, whatever the order of its entries.

If a field that identifies a block has the wrong type, the whole batch is malformed, because an index should resync
rather than guess which blocks are resident.
"""

from array import array
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]

from kvsync_events.canonical import MAX_KEY_DEPTH, canonical
from kvsync_events.errors import DecodeError
from kvsync_events.limits import DEFAULT_LIMITS, Limits, check_claims
from kvsync_events.types import AllBlocksCleared, BlockRemoved, BlockStored, Event, EventBatch, ExtraKeys, Hash

_STORED_NAMES: Final = BlockStored.__slots__
_REMOVED_NAMES: Final = BlockRemoved.__slots__
_CLEARED_NAMES: Final = AllBlocksCleared.__slots__
_INTS: Final = frozenset((int,))
_HASHES: Final = frozenset((int, bytes))
_KEY_SCALARS: Final = frozenset((str, int, bytes, float, bool, type(None)))


def decode_batch(payload: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> EventBatch:
    """Decode one payload.

    Raises:
        DecodeError: the payload is not a batch or exceeds a limit. No other exception is raised.
    """
    if len(payload) > limits.max_payload_bytes:
        raise DecodeError(f"payload of {len(payload)} bytes is over the limit of {limits.max_payload_bytes}")
    data = payload if isinstance(payload, bytes) else bytes(payload)
    check_claims(data, limits)
    raw = _unpack(data, limits)
    ts, events, rank = _split_batch(raw)
    if len(events) > limits.max_events:
        raise DecodeError(f"{len(events)} events in a batch, over the limit of {limits.max_events}")
    batch = EventBatch(ts, [], rank)
    for position, event in enumerate(events):
        try:
            _decode_event(event, batch, limits)
        except DecodeError as error:
            raise DecodeError(f"event {position}: {error}") from None
    return batch


def _unpack(data: bytes, limits: Limits) -> object:
    try:
        return msgpack.unpackb(
            data,
            max_array_len=min(len(data), max(limits.max_tokens, limits.max_hashes, limits.max_events)),
            max_map_len=min(len(data), 4096),
            max_str_len=min(len(data), limits.max_text_bytes),
            max_bin_len=min(len(data), limits.max_text_bytes),
            max_ext_len=min(len(data), limits.max_text_bytes),
        )
    except (ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        # For a reader, msgpack's own errors, oversized headers, bad UTF-8 and unhashable map keys are the same failure.
        raise DecodeError(f"not a msgpack event batch: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 200 else text[:200] + "…"


def _split_batch(raw: object) -> tuple[float, list[Any], int | None]:
    """Return (ts, events, rank) of a batch: an array, or a map with those names."""
    if type(raw) is list:
        if len(raw) < 2:
            raise DecodeError(f"a batch has at least 2 elements, not {len(raw)}")
        ts, events = raw[0], raw[1]
        rank = raw[2] if len(raw) > 2 else None
    elif type(raw) is dict and "ts" in raw and "events" in raw:
        ts, events = raw["ts"], raw["events"]
        rank = raw.get("data_parallel_rank", raw.get("attn_dp_rank"))
    else:
        raise DecodeError(f"a batch is an array [ts, events, rank], not {_kind(raw)}")
    if type(ts) is int:
        ts = float(ts)
    if type(ts) is not float or not isfinite(ts):
        raise DecodeError(f"ts must be a finite number, not {_kind(ts)}")
    if type(events) is not list:
        raise DecodeError(f"events must be an array, not {_kind(events)}")
    if rank is not None and (type(rank) is not int or rank < 0):
        raise DecodeError(f"data_parallel_rank must be a non-negative integer or null, not {_kind(rank)}")
    return ts, events, rank


def _decode_event(raw: object, batch: EventBatch, limits: Limits) -> None:
    """Append the event to the batch, or count it as unknown."""
    if type(raw) is dict:
        tag = raw.get("type")
        fields = raw
    elif type(raw) is list:
        tag = raw[0] if raw else None
        fields = dict(zip(_NAMES.get(tag, ()) if type(tag) is str else (), raw[1:], strict=False))
        if type(fields.get("lora_name")) is dict:
            del fields["lora_name"]
    else:
        raise DecodeError(f"an event is an array or a map, not {_kind(raw)}")
    if type(tag) is not str:
        raise DecodeError(f"the tag of an event must be a string, not {_kind(tag)}")
    decode = _DECODERS.get(tag)
    if decode is None:
        batch.unknown_events += 1
    else:
        batch.events.append(decode(fields.get, batch, limits))


def _decode_stored(get: Callable[[str], Any], batch: EventBatch, limits: Limits) -> BlockStored:
    hashes = _hashes(get("block_hashes"), limits)
    parent = get("parent_block_hash")
    if parent is not None:
        _check_hash("parent_block_hash", parent, limits)
    tokens = _tokens(get("token_ids"), limits)
    if tokens is None:
        batch.opaque_tokens += 1
        tokens = []
    block_size = _integer("block_size", get("block_size"), limits.max_block_size)
    if block_size is None:
        raise DecodeError("block_size is missing")
    extra_keys = _extra_keys(get("extra_keys"), limits)
    salt = _text("cache_salt", get("cache_salt"))
    if salt and extra_keys is None and parent is None and hashes:
        extra_keys = [(salt,), *([None] * (len(hashes) - 1))]
    return BlockStored(
        hashes,
        parent,
        tokens,
        block_size,
        _integer("lora_id", get("lora_id"), None),
        _text("medium", get("medium")),
        _text("lora_name", get("lora_name")),
        extra_keys,
        _integer("group_idx", get("group_idx"), 65_535),
        _text("kv_cache_spec_kind", get("kv_cache_spec_kind")),
        _integer("kv_cache_spec_sliding_window", get("kv_cache_spec_sliding_window"), 1 << 40),
        _text("locality", get("locality")),
        _text("ownership", get("ownership")),
        _text("session_id", get("session_id")),
        _lookahead(get("lookahead_token_ids"), limits),
    )


def _decode_removed(get: Callable[[str], Any], batch: EventBatch, limits: Limits) -> BlockRemoved:
    del batch
    return BlockRemoved(
        _hashes(get("block_hashes"), limits),
        _text("medium", get("medium")),
        _integer("group_idx", get("group_idx"), 65_535),
        _text("locality", get("locality")),
        _text("ownership", get("ownership")),
    )


def _decode_cleared(get: Callable[[str], Any], batch: EventBatch, limits: Limits) -> AllBlocksCleared:
    del batch, limits
    return AllBlocksCleared(_text("medium", get("medium")))


_DECODERS: Final[dict[str, Callable[[Callable[[str], Any], EventBatch, Limits], Event]]] = {
    "BlockStored": _decode_stored,
    "BlockRemoved": _decode_removed,
    "AllBlocksCleared": _decode_cleared,
}
_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "BlockStored": tuple(_STORED_NAMES),
    "BlockRemoved": tuple(_REMOVED_NAMES),
    "AllBlocksCleared": tuple(_CLEARED_NAMES),
}


def _hashes(value: object, limits: Limits) -> list[Hash]:
    if type(value) is not list:
        raise DecodeError(f"block_hashes must be an array, not {_kind(value)}")
    if len(value) > limits.max_hashes:
        raise DecodeError(f"{len(value)} block_hashes, over the limit of {limits.max_hashes}")
    kinds = set(map(type, value))
    if not kinds <= _INTS:
        if not kinds <= _HASHES:
            raise DecodeError("block_hashes must hold integers or bytes")
        for item in value:
            _check_hash("block_hashes", item, limits)
    return value


def _check_hash(name: str, value: object, limits: Limits) -> None:
    if type(value) is int:
        return
    if type(value) is not bytes:
        raise DecodeError(f"{name} must be an integer or bytes, not {_kind(value)}")
    if not 0 < len(value) <= limits.max_hash_bytes:
        raise DecodeError(f"{name} of {len(value)} bytes; 1 to {limits.max_hash_bytes} are allowed")


def _tokens(value: object, limits: Limits) -> list[int] | None:
    """Return the token ids, or None if they are readable but not plain 32-bit integers."""
    if value is None:
        return []
    if type(value) is not list:
        raise DecodeError(f"token_ids must be an array, not {_kind(value)}")
    if len(value) > limits.max_tokens:
        raise DecodeError(f"{len(value)} token_ids, over the limit of {limits.max_tokens}")
    kinds = set(map(type, value))
    if kinds <= _INTS:
        try:
            array("I", value)  # the fastest way to check the range of every element
        except OverflowError:
            return None
        return value
    if not kinds <= {int, str, list}:
        raise DecodeError("token_ids must hold integers")
    if list in kinds:
        for item in value:
            if type(item) is list and not (len(item) == 2 and set(map(type, item)) <= _INTS):
                raise DecodeError("token_ids must hold integers or pairs of integers")
    return None


def _integer(name: str, value: object, highest: int | None) -> int | None:
    if value is None:
        return None
    if type(value) is not int:
        raise DecodeError(f"{name} must be an integer or null, not {_kind(value)}")
    if highest is not None and not 0 <= value <= highest:
        raise DecodeError(f"{name} is {value}; 0 to {highest} are allowed")
    return value


def _text(name: str, value: object) -> str | None:
    if value is None or type(value) is str:
        return value
    raise DecodeError(f"{name} must be a string or null, not {_kind(value)}")


def _extra_keys(value: object, limits: Limits) -> list[ExtraKeys | None] | None:
    if value is None:
        return None
    if type(value) is not list:
        raise DecodeError(f"extra_keys must be an array or null, not {_kind(value)}")
    if len(value) > limits.max_hashes:
        raise DecodeError(f"{len(value)} extra_keys, over the limit of {limits.max_hashes}")
    return [None if entry is None else _key_entry(entry, limits) for entry in value]


def _key_entry(entry: object, limits: Limits) -> ExtraKeys:
    """Return the keys of one block with lists as tuples, so that they compare and hash like those that vLLM hashed."""
    if type(entry) is dict:
        return (_opaque(entry, limits, 1),)
    if type(entry) is not list:
        raise DecodeError(f"an entry of extra_keys must be an array, a map or null, not {_kind(entry)}")
    if len(entry) > limits.max_key_parts:
        raise DecodeError(f"{len(entry)} extra keys of one block, over the limit of {limits.max_key_parts}")
    return tuple(_key_part(part, limits) for part in entry)


def _key_part(part: object, limits: Limits) -> object:
    if type(part) in _KEY_SCALARS:
        return part
    if type(part) is dict:
        return _opaque(part, limits, 1)
    if type(part) is list and len(part) <= limits.max_key_parts and set(map(type, part)) <= _KEY_SCALARS | {dict}:
        return tuple(_opaque(item, limits, 2) if type(item) is dict else item for item in part)
    raise DecodeError(f"an extra key must be a scalar, a map or an array of those, not {_kind(part)}")


def _opaque(value: dict[Any, Any], limits: Limits, depth: int) -> bytes:
    """The canonical bytes of a map, whose meaning only the engine knows."""
    _check_opaque(value, limits, depth)
    return canonical((value,))


def _check_opaque(value: object, limits: Limits, depth: int) -> None:
    if type(value) in _KEY_SCALARS:
        return
    if type(value) is not dict and type(value) is not list:
        raise DecodeError(f"an extra key must hold scalars, arrays and maps, not {_kind(value)}")
    if len(value) > limits.max_key_parts or depth > MAX_KEY_DEPTH:
        raise DecodeError("a map in an extra key is over the limits")
    for item in value.values() if type(value) is dict else value:
        _check_opaque(item, limits, depth + 1)


def _lookahead(value: object, limits: Limits) -> list[list[int]] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) > limits.max_hashes:
        raise DecodeError(f"lookahead_token_ids must be an array of at most {limits.max_hashes} arrays, or null")
    for entry in value:
        if type(entry) is not list or not set(map(type, entry)) <= _INTS:
            raise DecodeError("lookahead_token_ids must hold arrays of integers")
    return value


def _kind(value: object) -> str:
    """Name the kind of a value for an error message, which must not contain a value that may be a megabyte long."""
    names = {type(None): "null", list: "an array", dict: "a map", str: "a string", bytes: "bytes", bool: "a boolean"}
    return names.get(type(value), f"a {type(value).__name__}")
