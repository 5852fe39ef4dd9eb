"""Cuts a run of payloads into slices, between which the core's lock is free and the thread can be interrupted."""

from collections.abc import Callable, Iterator

SLICE_BYTES = 256 << 10
"""What the native core applies in about a millisecond and the Python core in about 20 ms, if the payloads are usual."""
SLICE_BATCHES = 64


def slices(
    first_seq: int, payloads: tuple[bytes, ...], alone: Callable[[int], bool]
) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Yield (first sequence number, payloads) of each slice. A batch for which `alone` is true is a slice of its own.

    A payload is never cut: the index core bounds the work of one payload by its bytes.
    """
    begin = size = 0
    for place, payload in enumerate(payloads):
        lone = alone(first_seq + place)
        full = size + len(payload) > SLICE_BYTES or place - begin >= SLICE_BATCHES
        if place > begin and (full or lone):
            yield first_seq + begin, payloads[begin:place]
            begin, size = place, 0
        size += len(payload)
        if lone:
            yield first_seq + place, (payload,)
            begin, size = place + 1, 0
    if begin < len(payloads):
        yield first_seq + begin, payloads[begin:]
