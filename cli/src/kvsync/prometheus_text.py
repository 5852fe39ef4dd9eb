"""Reads single figures from the text of a Prometheus `/metrics` endpoint."""

import math
import re
from collections.abc import Sequence


def counter_total(text: str, name: str) -> int:
    """The sum of a counter or gauge over its labels; 0 if it is absent."""
    values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, values)))


def histogram_quantile(text: str, name: str, share: float) -> float | None:
    """A quantile of a histogram, summed over its labels and interpolated linearly; None if it has no values."""
    buckets: dict[float, float] = {}
    for bound, value in re.findall(
        rf'^{re.escape(name)}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)$', text, re.MULTILINE
    ):
        upper = math.inf if bound == "+Inf" else float(bound)
        buckets[upper] = buckets.get(upper, 0.0) + float(value)
    return _quantile(sorted(buckets.items()), share)


def _quantile(cumulative: Sequence[tuple[float, float]], share: float) -> float | None:
    if not cumulative or cumulative[-1][1] == 0:
        return None
    wanted = share * cumulative[-1][1]
    lower = below = 0.0
    for upper, count in cumulative:
        if count >= wanted:
            if math.isinf(upper):
                return lower
            return lower + (upper - lower) * (wanted - below) / max(count - below, 1e-12)
        lower, below = upper, count
    return lower
