"""The verdict on a benchmark: is the head slower than the base, beyond chance and beyond the noise of the machine?

Pure functions over samples; `bench_run` takes the samples, interleaved base, head, head, base, so that drift of a
shared machine falls on both sides alike. The statistic is the ratio of medians, its interval a bootstrap. A benchmark
fails only when the *lower* bound of the interval lies above its limit, and its limit is never below 1.10 nor below
three times what the same revision differs from itself (A/A).
"""

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_MARGIN = 0.10
SPREAD_FACTOR = 3.0
MINIMUM_ROUNDS = 10


@dataclass(frozen=True)
class Comparison:
    """One benchmark, base against head. `ratio` above 1 means that the head takes longer (or more)."""

    name: str
    ratio: float
    low: float
    high: float
    limit: float
    rounds: int

    @property
    def failed(self) -> bool:
        """Slower than allowed, and not by chance."""
        return self.low > self.limit


def interleaving(rounds: int) -> list[str]:
    """The order of runs: base, head, head, base, ... with `rounds` runs of each side (`rounds` even).

    Raises ValueError for fewer than ten rounds or an odd number: the pattern would not balance.
    """
    if rounds < MINIMUM_ROUNDS or rounds % 2:
        raise ValueError(f"rounds: {rounds}; must be even and at least {MINIMUM_ROUNDS}")
    return ["base", "head", "head", "base"] * (rounds // 2)


def ratio_interval(
    base: Sequence[float], head: Sequence[float], seed: int, resamples: int = 2000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """`(ratio, low, high)`: head's median over base's, with a percentile bootstrap interval."""
    rng = random.Random(seed)
    ratios = sorted(
        statistics.median(rng.choices(head, k=len(head))) / statistics.median(rng.choices(base, k=len(base)))
        for _ in range(resamples)
    )
    tail = (1 - confidence) / 2
    low, high = ratios[int(tail * resamples)], ratios[int((1 - tail) * resamples) - 1]
    return statistics.median(head) / statistics.median(base), low, high


def compute_limit(aa_spread: float) -> float:
    """The limit on the ratio for a benchmark whose A/A ratio strays from 1 by `aa_spread`."""
    return 1.0 + max(SMALLEST_MARGIN, SPREAD_FACTOR * aa_spread)


def compute_spread(samples: Sequence[float]) -> float:
    """How far one side's halves differ by chance: an A/A comparison out of samples already taken."""
    first, second = statistics.median(samples[::2]), statistics.median(samples[1::2])
    return abs(first / second - 1.0)


def compare(
    name: str, base: Sequence[float], head: Sequence[float], seed: int, aa_spread: float | None = None
) -> Comparison:
    """Compare two sides' samples (cost: seconds or bytes, lower is better).

    `aa_spread` is the spread a nightly A/A run recorded for this benchmark on this machine; without one, the base's own
    halves give it.
    """
    if min(len(base), len(head)) < MINIMUM_ROUNDS:
        raise ValueError(f"{name}: {len(base)} base and {len(head)} head samples; at least {MINIMUM_ROUNDS} of each")
    ratio, low, high = ratio_interval(base, head, seed)
    spread = compute_spread(base) if aa_spread is None else aa_spread
    return Comparison(name, ratio, low, high, compute_limit(spread), min(len(base), len(head)))
