"""Nearest-rank percentiles of values, and of values with counts.

The p-th percentile is the smallest value such that at least p percent of all values are not larger. It is always one
of the values, and it is exact: ranks are computed from whole percents, without the rounding errors of shares.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

REPORTED = (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99))
"""Names and percents of the percentiles that a Distribution has."""

Values = Iterable[float] | Mapping[float, int]
"""Values, or a mapping from each value to how often it occurs."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Summary of a set of values. Without values everything but the count is None."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    def rounded(self, factor: float, digits: int) -> dict[str, float | None]:
        """Everything but the count, times `factor` (for another unit) and rounded."""
        values = ((name, getattr(self, name)) for name in ("mean", *(name for name, _ in REPORTED), "max"))
        return {name: None if value is None else round(value * factor, digits) for name, value in values}


def summarize(values: Values) -> Distribution:
    """The distribution of the values."""
    pairs = _count(values)
    count = sum(times for _, times in pairs)
    if not count:
        return Distribution()
    mean = math.fsum(value * times for value, times in pairs) / count
    p50, p90, p95, p99 = _nearest_ranks(pairs, count, [percent for _, percent in REPORTED])
    return Distribution(count, mean, p50, p90, p95, p99, pairs[-1][0])


def percentile(values: Values, percent: int) -> float | None:
    """One percentile, from 1 to 100; None if there are no values."""
    pairs = _count(values)
    count = sum(times for _, times in pairs)
    return _nearest_ranks(pairs, count, [percent])[0] if count else None


def _count(values: Values) -> list[tuple[float, int]]:
    """Values in order, each with how often it occurs; a value that is listed twice stands there twice."""
    if isinstance(values, Mapping):
        return sorted((value, times) for value, times in values.items() if times)
    return [(value, 1) for value in sorted(values)]


def _nearest_ranks(pairs: Sequence[tuple[float, int]], count: int, percents: Sequence[int]) -> list[float]:
    """The percentiles for ascending `percents`."""
    ranks = [max(-(-count * percent // 100), 1) for percent in percents]
    found: list[float] = []
    seen = 0
    for value, times in pairs:
        seen += times
        while len(found) < len(ranks) and seen >= ranks[len(found)]:
            found.append(value)
    return found
