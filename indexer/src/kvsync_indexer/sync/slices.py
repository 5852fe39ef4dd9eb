"""Cuts a run of payloads where some of them must go to the core alone, and bounds the work of one call of the core."""

from collections.abc import Callable, Iterator

BUDGET = 4096
"""Work of one call, in the unit of `IndexCore.apply_many`: 256 KiB of payloads, or 4,096 blocks cleared or attached.

The native core does it in about a millisecond, and the Python core in about 20 ms.
"""


def slices(
    first_seq: int, payloads: tuple[bytes, ...], alone: Callable[[int], bool]
) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Yield (first sequence number, payloads) of each slice; a batch for which `alone` is true is one of its own."""
    begin = 0
    for place in range(len(payloads)):
        if not alone(first_seq + place):
            continue
        if place > begin:
            yield first_seq + begin, payloads[begin:place]
        yield first_seq + place, payloads[place : place + 1]
        begin = place + 1
    if begin < len(payloads):
        yield first_seq + begin, payloads[begin:]
