"""The report of a replay: the same keys live and offline, and offline the same bytes for the same seed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kvsync.replay.failures import count_failures
from kvsync.replay.records import Record, ReplayResult, by_worker, imbalance
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.percentiles import Values, summarize

CURVE_POINTS = 200


@dataclass(frozen=True, slots=True)
class Described:
    """What was replayed, and how."""

    mode: str
    """live or offline."""
    source: str
    seed: int
    policy: str | None
    scale: int
    block_size: int
    arrivals: Arrivals
    settings: dict[str, Any]
    """What else decides the outcome: the target, or engine sizes and latency."""
    reordered: int = 0
    """How many requests of the trace were out of time order."""


def build_report(described: Described, result: ReplayResult, ideal_hit_ratio: float) -> dict[str, Any]:
    """The report as JSON values. Keys end in the unit of a time; the times of an offline replay are virtual."""
    done = [record for record in result.records if record.ok]
    prompt = sum(record.prompt_tokens for record in done)
    hit = sum(record.hit_tokens for record in done)
    output = sum(record.output_tokens for record in done)
    duration_s = max((record.ended_s for record in result.records), default=0.0)
    workers = by_worker(result)
    return {
        "mode": described.mode,
        "trace": described.source,
        "seed": described.seed,
        "policy": described.policy,
        "arrivals": described.arrivals.describe(),
        "scale": described.scale,
        "block_size": described.block_size,
        "settings": described.settings,
        "requests": len(result.records),
        "reordered": described.reordered,
        "failed": len(result.records) - len(done),
        "failures": count_failures(record.failure for record in result.records if record.failure is not None),
        "reissued": result.reissued,
        "duration_s": round(duration_s, 6),
        "prompt_tokens": prompt,
        "hit_tokens": hit,
        "output_tokens": output,
        "tokens_per_s": _rate(prompt + output, duration_s),
        "output_tokens_per_s": _rate(output, duration_s),
        "requests_per_s": _rate(len(done), duration_s),
        "ttft_ms": _milliseconds(_microseconds(record.first_token_s - record.arrival_s for record in done)),
        "itl_ms": _milliseconds(result.gaps_us),
        "e2e_ms": _milliseconds(_microseconds(record.ended_s - record.arrival_s for record in done)),
        "hit_ratio": round(hit / prompt, 6) if prompt else 0.0,
        "ideal_hit_ratio": round(ideal_hit_ratio, 6),
        "preemptions": result.preemptions,
        "tiers": result.tiers,
        "workers": workers,
        "imbalance": imbalance(workers),
        "hit_curve": _curve(done),
    }


def _microseconds(seconds: Iterable[float]) -> Counter[int]:
    return Counter(round(value * 1e6) for value in seconds)


def _milliseconds(values_us: Values) -> dict[str, float | None]:
    return summarize(values_us).rounded(1e-3, 4)


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 3) if seconds else 0.0


def _curve(done: Sequence[Record]) -> list[tuple[float, float]]:
    """(seconds, hit ratio so far) at the ends of about CURVE_POINTS requests."""
    ordered = sorted(done, key=lambda record: (record.ended_s, record.number))
    step = max(len(ordered) // CURVE_POINTS, 1)
    curve: list[tuple[float, float]] = []
    hit = prompt = 0
    for count, record in enumerate(ordered, start=1):
        hit += record.hit_tokens
        prompt += record.prompt_tokens
        if count % step == 0 or count == len(ordered):
            curve.append((round(record.ended_s, 3), round(hit / prompt, 5)))
    return curve
