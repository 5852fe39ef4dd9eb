"""Latency summaries: exact nearest-rank percentiles over weighted values."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Count, mean and nearest-rank percentiles; all 0.0 if there was no value."""

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


def summarize(values: Iterable[float] | dict[float, int]) -> Summary:
    """Summary of values, or of a mapping value -> how often.

    The q-th percentile is the smallest value such that at least q percent of all are not larger (nearest rank).
    """
    pairs = sorted(values.items()) if isinstance(values, dict) else [(v, 1) for v in sorted(values)]
    count = sum(n for _, n in pairs)
    if not count:
        return Summary()
    mean = math.fsum(v * n for v, n in pairs) / count
    ranks = [max(math.ceil(count * q / 100), 1) for q in (50, 90, 95, 99)]
    found: list[float] = []
    seen = 0
    for value, n in pairs:
        seen += n
        while len(found) < len(ranks) and seen >= ranks[len(found)]:
            found.append(value)
    p50, p90, p95, p99 = found
    return Summary(count, mean, p50, p90, p95, p99, pairs[-1][0])
