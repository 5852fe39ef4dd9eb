"""The outcome of a replay, live or offline: one record per request, and what only the engines can report."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kvsync.replay.failures import Failure


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
    failure: Failure | None = None
    """Why the request failed, None if it did not."""

    @property
    def ok(self) -> bool:
        """Whether the whole answer arrived."""
        return self.failure is None


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Everything that one replay measured."""

    records: Sequence[Record]
    gaps_us: Mapping[int, int]
    """Whole microseconds between successive tokens of one answer, and how often each value occurred, in all answers."""
    workers: Sequence[str]
    preemptions: int | None = None
    """None where the engines were not asked: live."""
    regret_tokens: int | None = None
    """Prompt tokens that some engine held and the chosen one did not; None where no index was asked."""
    tiers: dict[str, Any] = field(default_factory=dict)
    reissued: int = 0


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
