"""Decides whether the head is slower than the base, beyond chance and beyond the noise of the machine.

The functions are pure. `bench_run` takes the samples in the order base, head, head, base, so that the drift of a shared
machine affects both sides equally. The statistic is the ratio of medians with a bootstrap interval. A job fails only if
the *lower* bound of the interval exceeds its limit. The limit is 1.10, or three times the spread between two runs of
the same revision (A/A) if that is larger.
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
    """The comparison of a job between base and head. A ratio above 1 means that the head costs more."""

    name: str
    ratio: float
    low: float
    high: float
    limit: float
    rounds: int

    @property
    def failed(self) -> bool:
        """Whether the head costs more than allowed, beyond chance."""
        return self.low > self.limit


def interleaving(rounds: int) -> list[str]:
    """Return the order of runs, base, head, head, base and so on, with `rounds` runs per side.

    Raises:
        ValueError: `rounds` is odd, so that the order would not balance, or less than ten.
    """
    if rounds < MINIMUM_ROUNDS or rounds % 2:
        raise ValueError(f"rounds: {rounds}; must be even and at least {MINIMUM_ROUNDS}")
    return ["base", "head", "head", "base"] * (rounds // 2)


def ratio_interval(
    base: Sequence[float], head: Sequence[float], seed: int, resamples: int = 2000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return `(ratio, low, high)`: the median of the head divided by that of the base, and its bootstrap interval."""
    rng = random.Random(seed)
    ratios = sorted(
        statistics.median(rng.choices(head, k=len(head))) / statistics.median(rng.choices(base, k=len(base)))
        for _ in range(resamples)
    )
    tail = (1 - confidence) / 2
    low, high = ratios[int(tail * resamples)], ratios[int((1 - tail) * resamples) - 1]
    return statistics.median(head) / statistics.median(base), low, high


def compute_limit(aa_spread: float) -> float:
    """Return the limit on the ratio of a job whose A/A ratio differs from 1 by `aa_spread`."""
    return 1.0 + max(SMALLEST_MARGIN, SPREAD_FACTOR * aa_spread)


def compute_spread(samples: Sequence[float]) -> float:
    """Return how much two halves of the samples of one side differ, as an estimate of the A/A spread."""
    first, second = statistics.median(samples[::2]), statistics.median(samples[1::2])
    return abs(first / second - 1.0)


def compare(
    name: str, base: Sequence[float], head: Sequence[float], seed: int, aa_spread: float | None = None
) -> Comparison:
    """Compare the samples of two sides. They are costs in seconds or bytes, so that lower is better.

    `aa_spread` is the recorded spread of this job on this machine. If it is None, the spread between two halves of the
    base's samples is used.

    Raises:
        ValueError: a side has fewer than ten samples.
    """
    if min(len(base), len(head)) < MINIMUM_ROUNDS:
        raise ValueError(f"{name}: {len(base)} base and {len(head)} head samples; at least {MINIMUM_ROUNDS} of each")
    ratio, low, high = ratio_interval(base, head, seed)
    spread = compute_spread(base) if aa_spread is None else aa_spread
    return Comparison(name, ratio, low, high, compute_limit(spread), min(len(base), len(head)))
