"""The data-parallel rank of payloads, for readers of a stream that several ranks share.

A payload is the batch of one rank. It names the rank after its events, or not at all. Reading the rank passes over the
events without decoding them.
"""

from collections.abc import Iterable

import msgpack  # type: ignore[import-untyped]

from kvsync_events.errors import DecodeError

_RANK_AT = 2
"""The position of the rank in the array form of a batch."""


def batch_rank(payload: bytes) -> int | None:
    """The rank that a payload names, or None if it names none. Raises DecodeError if the payload is not a batch."""
    reader = msgpack.Unpacker(max_buffer_size=max(1, len(payload)))
    reader.feed(payload)
    try:
        rank = _rank(reader, payload[:1])
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise DecodeError(f"not a msgpack event batch: {type(error).__name__}") from None
    if rank is None or (type(rank) is int and rank >= 0):
        return rank
    raise DecodeError("data_parallel_rank must be a non-negative integer or null")


def _rank(reader: msgpack.Unpacker, first: bytes) -> object:
    if first[:1] >= b"\xde" or first < b"\x90":
        return _rank_of_map(reader)
    if reader.read_array_header() <= _RANK_AT:
        return None
    for _ in range(_RANK_AT):
        reader.skip()
    return reader.unpack()


def _rank_of_map(reader: msgpack.Unpacker) -> object:
    found: dict[str, object] = {}
    for _ in range(reader.read_map_header()):
        name = reader.unpack()
        if name in ("data_parallel_rank", "attn_dp_rank"):
            found[name] = reader.unpack()
        else:
            reader.skip()
    return found.get("data_parallel_rank", found.get("attn_dp_rank"))


def split_by_rank(payloads: Iterable[bytes]) -> dict[int | None, list[bytes]]:
    """Payloads by the rank that they name, in their order. Raises DecodeError as `batch_rank` does."""
    by_rank: dict[int | None, list[bytes]] = {}
    for payload in payloads:
        by_rank.setdefault(batch_rank(payload), []).append(payload)
    return by_rank
