"""How late events are: plain counters in the I/O thread, turned into Prometheus histograms when scraped."""

import struct
from bisect import bisect_left

_TS = struct.Struct(">d")
_FLOAT64 = 0xCB
_BATCH_ARRAYS = (0x92, 0x93, 0x94, 0x95)

BUCKETS_S = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


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


def batch_time(payload: bytes) -> float | None:
    """The wall time a batch was made, read from its first bytes (`[ts: float64, ...]`) without decoding the rest."""
    if len(payload) > 10 and payload[1] == _FLOAT64 and payload[0] in _BATCH_ARRAYS:
        ts: float = _TS.unpack_from(payload, 2)[0]
        return ts
    return None
