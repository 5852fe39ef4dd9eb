"""Numbers from outcomes: hit ratio, percentiles, the curve of hits over time."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kvsync.load.client import Outcome


def percentile(values: Sequence[float], share: float, *, ordered: bool = False) -> float | None:
    """Nearest-rank percentile (share in 0..1), of values that are sorted already or not; None of nothing."""
    if not values:
        return None
    ranked = values if ordered else sorted(values)
    return ranked[max(math.ceil(share * len(ranked)), 1) - 1]


def percentiles_ms(values_s: Sequence[float]) -> dict[str, float | None]:
    """p50, p95 and p99 in milliseconds."""
    found = {name: percentile(values_s, share) for name, share in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))}
    return {name: None if value is None else round(value * 1000, 3) for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Summary:
    """One policy's outcomes, added up. Hits and prompts are tokens, as the engines reported them."""

    requests: int
    failed: int
    reissued: int
    prompt_tokens: int
    cached_tokens: int
    ttft_ms: dict[str, float | None]
    duration_s: float
    by_endpoint: dict[str, int]
    by_policy: dict[str, int]

    @property
    def hit_ratio(self) -> float:
        """Hit prefix tokens over prompt tokens."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Add up the outcomes of one replay."""
    done = [outcome for outcome in outcomes if outcome.ok]
    return Summary(
        requests=len(outcomes),
        failed=len(outcomes) - len(done),
        reissued=sum(outcome.issues > 1 for outcome in outcomes),
        prompt_tokens=sum(outcome.prompt_tokens for outcome in done),
        cached_tokens=sum(outcome.cached_tokens for outcome in done),
        ttft_ms=percentiles_ms([outcome.ttft_s for outcome in done]),
        duration_s=max((outcome.ended_s for outcome in outcomes), default=0.0),
        by_endpoint=_count(outcome.endpoint for outcome in done),
        by_policy=_count(outcome.policy for outcome in done),
    )


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def hit_curve(outcomes: Sequence[Outcome], points: int = 200) -> list[tuple[float, float]]:
    """(seconds, hit ratio so far) as requests ended, thinned to about `points`."""
    return _curve(outcomes, points, lambda outcome: outcome.cached_tokens)


def ideal_curve(outcomes: Sequence[Outcome], ideal_hits: Sequence[int], points: int = 200) -> list[tuple[float, float]]:
    """The unlimited cache's ratio over the same requests at the same times."""
    return _curve(outcomes, points, lambda outcome: ideal_hits[outcome.number])


def _curve(outcomes: Sequence[Outcome], points: int, hits: Callable[[Outcome], int]) -> list[tuple[float, float]]:
    done = sorted((outcome for outcome in outcomes if outcome.ok), key=lambda outcome: outcome.ended_s)
    step = max(len(done) // points, 1)
    curve: list[tuple[float, float]] = []
    hit = prompt = 0
    for count, outcome in enumerate(done, start=1):
        hit += hits(outcome)
        prompt += outcome.prompt_tokens
        if count % step == 0 or count == len(done):
            curve.append((round(outcome.ended_s, 3), round(hit / max(prompt, 1), 5)))
    return curve
