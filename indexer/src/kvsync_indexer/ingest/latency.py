"""How late events are: plain counters in the I/O thread, turned into Prometheus histograms when scraped."""

import struct
from bisect import bisect_left

_TS = struct.Struct(">d")
_FLOAT64 = 0xCB
_BATCH_ARRAYS = (0x92, 0x93, 0x94, 0x95)

BUCKETS_S = (
    0.00002, 0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0004, 0.0005, 0.0006, 0.0008, 0.001, 0.0015, 0.002, 0.003,
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Fine up to a millisecond, which is what a match and a healthy stream take."""


class LatencyHistogram:
    """Counts by bucket; written by one thread, read by any."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value; below zero (clocks that disagree) counts as zero."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def observe_since(self, begun: list[float], now: float) -> None:
        """Count `now` minus each: a run that came in one piece is mostly in one bucket, and counted in one step."""
        longest, shortest = now - min(begun), now - max(begun)
        bucket = bisect_left(BUCKETS_S, longest)
        if shortest >= 0.0 and bucket == bisect_left(BUCKETS_S, shortest):
            self.counts[bucket] += len(begun)
            self.total_s += len(begun) * now - sum(begun)
            return
        for each in begun:
            self.observe(now - each)

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, count up to it) pairs, as Prometheus wants them."""
        pairs: list[tuple[str, int]] = []
        total = 0
        for bound, count in zip((*BUCKETS_S, float("inf")), self.counts, strict=True):
            total += count
            pairs.append(("+Inf" if bound == float("inf") else repr(bound), total))
        return pairs

    def quantile(self, share: float) -> float:
        """Upper bound of the bucket in which the share lies; 0.0 when nothing was counted."""
        wanted = share * sum(self.counts)
        total = 0
        for bound, count in zip((*BUCKETS_S, BUCKETS_S[-1]), self.counts, strict=True):
            total += count
            if count and total >= wanted:
                return bound
        return 0.0


def batch_times(payloads: list[bytes]) -> list[float]:
    """The wall times at which batches were made, read from their first bytes (`[ts: float64, ...]`) and no further.

    A batch that does not begin so is left out.
    """
    read = _TS.unpack_from
    return [
        read(payload, 2)[0]
        for payload in payloads
        if len(payload) > 10 and payload[1] == _FLOAT64 and payload[0] in _BATCH_ARRAYS
    ]
