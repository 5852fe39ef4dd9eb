"""The result of a replay: one record per request, one per worker, and a summary of plain JSON values."""

from dataclasses import dataclass, field
from typing import Any

from kvsync_mockpod.engine import TierReport
from kvsync_workload.percentiles import Values, summarize


@dataclass(slots=True)
class RequestRecord:
    """What happened to one request; times are seconds of virtual time."""

    number: int
    worker: int
    arrival_s: float
    """When it was due; a limit on requests in flight may have delayed it."""
    sent_s: float
    prompt_tokens: int
    first_token_s: float | None = None
    ended_s: float | None = None
    output_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    reason: str | None = None
    """Why it ended: the finish reason of the engine, or `refused`."""

    @property
    def ok(self) -> bool:
        """Whether the answer is complete."""
        return self.reason in ("length", "stop")


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One engine over the whole replay."""

    requests: int
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    steps: int
    busy_s: float
    preemptions: int
    stored_blocks: int
    removed_blocks: int
    tiers: TierReport | None


@dataclass(slots=True)
class ReplayResult:
    """The whole replay. Equal seeds and inputs give equal results, to the last bit of every float."""

    records: list[RequestRecord]
    workers: list[WorkerRecord]
    gaps_us: dict[int, int]
    """Whole microseconds between successive tokens of one request, and how often each value occurred."""
    ideal_hit_tokens: int
    duration_s: float = 0.0
    steps: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def hit_ratio(self) -> float:
        """Prompt tokens found in a cache over prompt tokens, of all complete answers."""
        done = [r for r in self.records if r.ok]
        prompt = sum(r.prompt_tokens for r in done)
        return sum(r.cached_tokens for r in done) / prompt if prompt else 0.0

    def summary(self) -> dict[str, Any]:
        """JSON values under stable keys: counts, throughput, latencies in ms, hit ratios, balance and tiers."""
        done = [r for r in self.records if r.ok]
        prompt = sum(r.prompt_tokens for r in done)
        output = sum(r.output_tokens for r in done)
        ttft = [r.first_token_s - r.arrival_s for r in done if r.first_token_s is not None]
        e2e = [r.ended_s - r.arrival_s for r in done if r.ended_s is not None]
        per_s = 1.0 / self.duration_s if self.duration_s else 0.0
        loads = [w.prompt_tokens + w.output_tokens for w in self.workers]
        mean = sum(loads) / len(loads)
        return {
            "settings": self.settings,
            "requests": len(self.records),
            "failed": len(self.records) - len(done),
            "duration_s": self.duration_s,
            "steps": self.steps,
            "prompt_tokens": prompt,
            "output_tokens": output,
            "tokens_per_s": (prompt + output) * per_s,
            "output_tokens_per_s": output * per_s,
            "requests_per_s": len(done) * per_s,
            "ttft_ms": _ms(ttft, 1e3),
            "itl_ms": _ms(self.gaps_us, 1e-3),
            "e2e_ms": _ms(e2e, 1e3),
            "hit_ratio": self.hit_ratio,
            "ideal_hit_ratio": self.ideal_hit_tokens / max(sum(r.prompt_tokens for r in self.records), 1),
            "preemptions": sum(w.preemptions for w in self.workers),
            "imbalance": max(loads) / mean if mean else 1.0,
            "workers": [_worker(w) for w in self.workers],
        }


def _ms(values: Values, factor: float) -> dict[str, float | None]:
    found = summarize(values)
    return {"count": found.count, **found.rounded(factor, 6)}


def _worker(w: WorkerRecord) -> dict[str, Any]:
    out = {name: getattr(w, name) for name in WorkerRecord.__slots__ if name != "tiers"}
    if w.tiers is not None:
        out["tiers"] = _report(w.tiers)
    return out


def _report(report: Any) -> Any:  # noqa: ANN401 - nested frozen reports
    if not hasattr(report, "__slots__"):
        return report
    return {name: _report(getattr(report, name)) for name in report.__slots__}
