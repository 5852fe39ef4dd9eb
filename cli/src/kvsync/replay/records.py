"""What a replay knows afterwards, wherever it ran: one record a request, and what only the engines can tell."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SHARES = (("p50", 0.50), ("p90", 0.90), ("p95", 0.95), ("p99", 0.99))


@dataclass(frozen=True, slots=True)
class Record:
    """One request. Times are seconds since the start of the replay."""

    number: int
    worker: str
    arrival_s: float
    first_token_s: float
    ended_s: float
    prompt_tokens: int
    hit_tokens: int
    output_tokens: int
    ok: bool = True


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Everything one replay measured."""

    records: Sequence[Record]
    gaps_us: Mapping[int, int]
    """Whole microseconds between successive tokens of one answer, and how often each occurred, over all answers."""
    workers: Sequence[str]
    preemptions: int | None = None
    """None where nobody could say."""
    tiers: dict[str, Any] = field(default_factory=dict)
    reissued: int = 0


def distribution_ms(values_us: Mapping[int, int]) -> dict[str, float | None]:
    """Mean, percentiles (nearest rank) and maximum in milliseconds, of whole microseconds with their counts."""
    total = sum(values_us.values())
    if not total:
        return dict.fromkeys(("mean", *(name for name, _ in SHARES), "max"))
    ordered = sorted(values_us.items())
    found: dict[str, float | None] = {"mean": _ms(sum(value * count for value, count in ordered) / total)}
    ranks = iter([(name, max(math.ceil(share * total), 1)) for name, share in SHARES])
    name, rank = next(ranks)
    below = 0
    for value, count in ordered:
        below += count
        while name and below >= rank:
            found[name] = _ms(value)
            name, rank = next(ranks, ("", 0))
    return found | {"max": _ms(ordered[-1][0])}


def _ms(microseconds: float) -> float:
    return round(microseconds / 1000, 4)


def by_worker(result: ReplayResult) -> dict[str, dict[str, int]]:
    """Requests, prompt, hit, computed and output tokens of every worker."""
    rows = {
        worker: dict.fromkeys(("requests", "prompt_tokens", "hit_tokens", "computed_tokens", "output_tokens"), 0)
        for worker in result.workers
    }
    for record in _done(result.records):
        row = rows[record.worker]
        row["requests"] += 1
        row["prompt_tokens"] += record.prompt_tokens
        row["hit_tokens"] += record.hit_tokens
        row["computed_tokens"] += record.prompt_tokens - record.hit_tokens + record.output_tokens
        row["output_tokens"] += record.output_tokens
    return rows


def imbalance(rows: dict[str, dict[str, int]]) -> float | None:
    """The busiest worker's computed tokens over the mean; 1 is perfect balance."""
    computed = [row["computed_tokens"] for row in rows.values()]
    return round(max(computed) * len(computed) / sum(computed), 4) if computed and sum(computed) else None


def _done(records: Iterable[Record]) -> Iterable[Record]:
    return (record for record in records if record.ok)
