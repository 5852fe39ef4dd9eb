"""Numbers from the outcomes of a replay: totals, hit ratio, latencies, and the hit ratio over time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from kvsync.load.client import Outcome
from kvsync_workload.percentiles import percentile

TTFT_PERCENTILES = (("p50", 50), ("p95", 95), ("p99", 99))


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals of one replay. Token counts are those that the engines reported."""

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
    """Summarize the outcomes of one replay; only successful requests count, except where a field says otherwise."""
    done = [outcome for outcome in outcomes if outcome.ok]
    ttft_ms = [outcome.ttft_s * 1000 for outcome in done]
    return Summary(
        requests=len(outcomes),
        failed=len(outcomes) - len(done),
        reissued=sum(outcome.issues > 1 for outcome in outcomes),
        prompt_tokens=sum(outcome.prompt_tokens for outcome in done),
        cached_tokens=sum(outcome.cached_tokens for outcome in done),
        ttft_ms={name: _rounded(percentile(ttft_ms, percent)) for name, percent in TTFT_PERCENTILES},
        duration_s=max((outcome.ended_s for outcome in outcomes), default=0.0),
        by_endpoint=_count(outcome.endpoint for outcome in done),
        by_policy=_count(outcome.policy for outcome in done),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _count(names: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def hit_curve(outcomes: Sequence[Outcome], points: int = 200) -> list[tuple[float, float]]:
    """(seconds, hit ratio so far) at the ends of about `points` evenly chosen requests."""
    return _curve(outcomes, points, lambda outcome: outcome.cached_tokens)


def ideal_curve(outcomes: Sequence[Outcome], ideal_hits: Sequence[int], points: int = 200) -> list[tuple[float, float]]:
    """The ratio of an unlimited cache for the same requests at the same times."""
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
