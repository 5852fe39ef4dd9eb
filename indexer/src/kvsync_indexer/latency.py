"""How late events are: plain counters in the I/O thread, turned into Prometheus histograms when they are scraped."""

import struct
from bisect import bisect_left
from collections.abc import Callable, Sequence

_TS = struct.Struct(">d")
_FLOAT64 = 0xCB
_BATCH_ARRAYS = (0x92, 0x93, 0x94, 0x95)

LONGEST_S = 86_400.0
"""A delay of more than a day is a wrong clock, and is counted as a day, lest one publisher outweigh all others."""
_LATEST = 1e11
"""Wall times beyond this (the year 5138), and those that are no numbers, were not made by a clock."""

BUCKETS_S = (
    0.00002, 0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0004, 0.0005, 0.0006, 0.0008, 0.001, 0.0015, 0.002, 0.003,
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds: fine up to a millisecond, which is what a match and a healthy stream take."""


class LatencyHistogram:
    """Counts per bucket; written by one thread, read by any."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value; a negative one, which clocks that disagree give, counts as zero, and NaN does too."""
        seconds = min(seconds, LONGEST_S) if seconds > 0.0 else 0.0
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def observe_since(self, begun: list[float], now: float) -> None:
        """Count `now` minus each value; a run that arrived in one piece is mostly in one bucket and counted at once."""
        longest, shortest = now - min(begun), now - max(begun)
        bucket = bisect_left(BUCKETS_S, longest)
        if shortest >= 0.0 and longest <= LONGEST_S and bucket == bisect_left(BUCKETS_S, shortest):
            self.counts[bucket] += len(begun)
            self.total_s += len(begun) * now - sum(begun)
            return
        for each in begun:
            self.observe(now - each)

    def cumulative(self) -> list[tuple[str, int]]:
        """Return (upper bound, count up to it) pairs, as Prometheus expects them."""
        pairs: list[tuple[str, int]] = []
        total = 0
        for bound, count in zip((*BUCKETS_S, float("inf")), self.counts, strict=True):
            total += count
            pairs.append(("+Inf" if bound == float("inf") else repr(bound), total))
        return pairs

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket in which the share lies; 0.0 if nothing was counted."""
        return quantile_of(self.counts, share)


def quantile_of(counts: Sequence[int], share: float) -> float:
    """The same for the counts of any histogram with these buckets."""
    wanted = share * sum(counts)
    total = 0
    for bound, count in zip((*BUCKETS_S, BUCKETS_S[-1]), counts, strict=True):
        total += count
        if count and total >= wanted:
            return bound
    return 0.0


class StreamMeter:
    """Counts the bytes and delays of every stream that shares it."""

    __slots__ = ("arrival", "bytes_in", "visible", "wall")

    def __init__(self, wall: Callable[[], float]) -> None:
        self.wall = wall
        """The wall clock, in seconds since the epoch, as the publishers' own."""
        self.arrival = LatencyHistogram()
        """From the making of a batch to its arrival."""
        self.visible = LatencyHistogram()
        """From the making of a batch until queries can match it."""
        self.bytes_in = 0


def batch_times(payloads: list[bytes]) -> list[float]:
    """Return the wall times at which batches were made, from their first bytes (`[ts: float64, ...]`).

    A batch that does not begin so is left out, and so is a time that no clock shows; nothing else is decoded.
    """
    read = _TS.unpack_from
    times = [
        read(payload, 2)[0]
        for payload in payloads
        if len(payload) > 10 and payload[1] == _FLOAT64 and payload[0] in _BATCH_ARRAYS
    ]
    return [made for made in times if -_LATEST < made < _LATEST]
