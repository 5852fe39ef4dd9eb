"""Refuses a stream that carries batches of several data-parallel ranks.

A clear and a removal belong to the cache of one rank. On a stream of several ranks, one rank's clear would drop the
blocks of another, and a prompt that one rank holds would count for all. Every engine that is known gives each rank a
stream of its own; where something merges them, the publisher is refused, and its reason names the ranks.
"""

from collections.abc import Iterable

from kvsync_events import DecodeError, decode_batch

_ARRAY_OF_2 = 0x92
_ARRAY_OF_3 = 0x93
_LARGEST_FIXINT = 0x7F
_NIL = 0xC0
_HEADS = ((1, b"\xcc\xd0"), (2, b"\xcd\xd1"), (4, b"\xce\xd2"), (8, b"\xcf\xd3"))
"""Bytes that an integer takes behind its head, and the heads of integers of that size."""
_WIDEST = 9


def rank_of(payload: bytes) -> int | None:
    """Return the rank that a batch names, None if it names none or cannot be decoded.

    Usual batches are arrays of three elements with a small rank at the end, of which only the ends are read:
    `[ts, events, 5]` ends in the byte 5. Where the bytes before could be the head of a longer integer, the batch is
    decoded.
    """
    if len(payload) > _WIDEST and payload[0] == _ARRAY_OF_3:
        longer = any(payload[-width - 1] in heads for width, heads in _HEADS)
        if payload[-1] <= _LARGEST_FIXINT and not longer:
            return payload[-1]
        if payload[-1] == _NIL and not longer:
            return None
    elif payload[:1] == bytes([_ARRAY_OF_2]):
        return None
    return _decoded_rank(payload)


def _decoded_rank(payload: bytes) -> int | None:
    try:
        return decode_batch(payload).data_parallel_rank
    except DecodeError:
        return None


class Ranks:
    """Remembers the rank of one incarnation of a publisher. A batch that names no rank fits any."""

    __slots__ = ("rank",)

    def __init__(self) -> None:
        self.rank: int | None = None

    def forget(self) -> None:
        """Begin a new process."""
        self.rank = None

    def first_other(self, payloads: Iterable[bytes]) -> tuple[int, int] | None:
        """Return (place, rank) of the first batch of another rank than the ones before it; None if there is none."""
        for place, payload in enumerate(payloads):
            rank = rank_of(payload)
            if rank is None or rank == self.rank:
                continue
            rank = _decoded_rank(payload)  # the end of a payload that was cut off says nothing
            if rank is None or rank == self.rank:
                continue
            if self.rank is not None:
                return place, rank
            self.rank = rank
        return None
