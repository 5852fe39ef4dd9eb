"""What one replay of a sweep gives: plain numbers, which can be sent between machines and compared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from kvsync.plan.sweep import Configuration, Fixed
from kvsync.replay.offline import replay_offline
from kvsync.replay.records import ReplayResult, by_worker, imbalance
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.percentiles import summarize
from kvsync_workload.trace import TraceRequest

LATENCIES = ("ttft_ms", "itl_ms", "e2e_ms")
PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Work:
    """What every task of a sweep needs."""

    requests: Sequence[TraceRequest]
    arrivals: Arrivals
    fixed: Fixed


@dataclass(frozen=True, slots=True)
class Task:
    """One replay."""

    configuration: Configuration
    seed: int


Outcome = dict[str, Any]
"""Numbers by name: `hit_ratio`, `ideal_hit_ratio`, `regret_ratio`, `requests_per_s`, `tokens_per_s`, `duration_s`,
`failed`, `preemptions`, `imbalance`, and a mapping of percentiles for each name in LATENCIES."""


def run_task(work: Work, task: Task) -> Outcome:
    """Replay the trace under one configuration."""
    result, ideal = replay_offline(work.requests, work.arrivals, work.fixed.settings(task.configuration, task.seed))
    return _measure(result, ideal)


def _measure(result: ReplayResult, ideal: float) -> Outcome:
    done = [record for record in result.records if record.ok]
    prompt = sum(record.prompt_tokens for record in done)
    output = sum(record.output_tokens for record in done)
    duration = max((record.ended_s for record in result.records), default=0.0)
    return {
        "requests": len(result.records),
        "failed": len(result.records) - len(done),
        "duration_s": round(duration, 6),
        "tokens": prompt + output,
        "requests_per_s": round(len(done) / duration, 4) if duration else 0.0,
        "tokens_per_s": round((prompt + output) / duration, 3) if duration else 0.0,
        "hit_ratio": round(sum(record.hit_tokens for record in done) / max(prompt, 1), 6),
        "ideal_hit_ratio": round(ideal, 6),
        "regret_ratio": None if result.regret_tokens is None else round(result.regret_tokens / max(prompt, 1), 6),
        "preemptions": result.preemptions or 0,
        "imbalance": imbalance(by_worker(result)),
        "ttft_ms": _percentiles(record.first_token_s - record.arrival_s for record in done),
        "itl_ms": summarize(result.gaps_us).rounded(1e-3, 4),
        "e2e_ms": _percentiles(record.ended_s - record.arrival_s for record in done),
    }


def _percentiles(seconds: Iterable[float]) -> dict[str, float | None]:
    return summarize(seconds).rounded(1e3, 4)


def combine(outcomes: Sequence[Outcome]) -> Outcome:
    """The mean over seeds of every number; failed requests are added up. A percentile is the worst of the seeds'."""
    combined: Outcome = {}
    for name in outcomes[0]:
        values = [outcome[name] for outcome in outcomes]
        if name in LATENCIES:
            combined[name] = {key: _worst(value[key] for value in values) for key in values[0]}
        elif name == "failed":
            combined[name] = sum(values)
        else:
            known = [value for value in values if value is not None]
            combined[name] = round(fmean(known), 6) if known else None
    return combined


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
