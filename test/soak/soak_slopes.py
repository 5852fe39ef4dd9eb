"""Judges whether memory, descriptors and threads of a process grow (invariant I11).

A process is judged over its own life without the warm-up, in which caches fill. The samples are reduced to at most 240,
and Sen's method gives the slope: the median of the slopes between all pairs of samples, which single peaks do not move,
with its distribution-free 95 % confidence interval (P. K. Sen, Journal of the American Statistical Association 63,
1968). A size fails if the *lower* bound of the interval, multiplied by the judged time, exceeds an allowance. A short
run therefore detects only fast leaks: the smallest slope that it can detect is the allowance divided by the judged
time, and the report states it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959964
MOST_SAMPLES = 240
FEWEST_SAMPLES = 30
WARM_UP_SHARE = 1 / 3
WARM_UP_S = 60.0
"""The warm-up is this share of the life of a process, and at least this time."""


@dataclass(frozen=True)
class Slope:
    """The growth of one size per hour, with the bounds of its interval."""

    name: str
    unit: str
    samples: int
    judged_s: float
    per_hour: float
    low_per_hour: float
    high_per_hour: float
    detectable_per_hour: float
    """The smallest growth per hour that this run can detect."""
    failed: bool


def sen_slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """(slope, lower bound, upper bound) of y per x, by Sen's method with the normal approximation."""
    slopes = sorted(
        (y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1 :] if x2 != x1
    )
    count = len(points)
    if not slopes:
        raise ValueError("a slope needs two samples at different times")
    spread = Z_95 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = max(0, math.floor((len(slopes) - spread) / 2))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + spread) / 2))
    middle = len(slopes) // 2
    median = slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2
    return median, slopes[low], slopes[high]


def thin(points: Sequence[tuple[float, float]], most: int = MOST_SAMPLES) -> list[tuple[float, float]]:
    """At most `most` of the points, evenly spaced."""
    if len(points) <= most:
        return list(points)
    return [points[index * len(points) // most] for index in range(most)]


def judge(name: str, unit: str, points: Sequence[tuple[float, float]], allowance: float) -> Slope | None:
    """Judge one size of one process.

    Args:
        name: What is measured.
        unit: The unit of the values.
        points: (time in seconds, value), in order, from the start of the process to its end.
        allowance: Growth over the judged time that is accepted.

    Returns:
        The verdict, or None if the process did not live long enough for one.
    """
    if not points:
        return None
    began, ended = points[0][0], points[-1][0]
    first = began + max(WARM_UP_S, WARM_UP_SHARE * (ended - began))
    judged = thin([point for point in points if point[0] >= first])
    if len(judged) < FEWEST_SAMPLES:
        return None
    time_s = judged[-1][0] - judged[0][0]
    slope, low, high = sen_slope(judged)
    return Slope(
        name=name,
        unit=unit,
        samples=len(judged),
        judged_s=time_s,
        per_hour=slope * 3600,
        low_per_hour=low * 3600,
        high_per_hour=high * 3600,
        detectable_per_hour=allowance / time_s * 3600,
        failed=low * time_s > allowance,
    )
