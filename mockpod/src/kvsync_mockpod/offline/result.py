"""What a replay brought: a record a request, one a worker, and the summary as plain JSON values."""

from dataclasses import dataclass, field
from typing import Any

from kvsync_mockpod.engine import TierReport
from kvsync_mockpod.quantiles import Summary, summarize

__all__ = ["ReplayResult", "RequestRecord", "WorkerRecord"]


@dataclass(slots=True)
class RequestRecord:
    """One request's life; times in seconds of virtual time."""

    number: int
    worker: int
    arrival_s: float
    """When it was due; with a cap it may have been sent later."""
    sent_s: float
    prompt_tokens: int
    first_token_s: float | None = None
    ended_s: float | None = None
    output_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    reason: str | None = None
    """`length`, `refused`, …"""

    @property
    def ok(self) -> bool:
        """Whether it was answered in full."""
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
    """The whole replay. The same seed and input give equal results, floats to the last bit."""

    records: list[RequestRecord]
    workers: list[WorkerRecord]
    gaps_us: dict[int, int]
    """Times between tokens of one request in whole microseconds, and how often each occurred."""
    ideal_hit_tokens: int
    duration_s: float = 0.0
    steps: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def hit_ratio(self) -> float:
        """Prompt tokens found in a cache, of all prompt tokens answered."""
        done = [r for r in self.records if r.ok]
        prompt = sum(r.prompt_tokens for r in done)
        return sum(r.cached_tokens for r in done) / prompt if prompt else 0.0

    def summary(self) -> dict[str, Any]:
        """JSON values with stable keys: counts, throughput, TTFT, ITL, E2E (ms), hit ratios, balance, tiers."""
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
            "ttft_ms": _ms(summarize(ttft)),
            "itl_ms": _ms(summarize({us / 1e6: n for us, n in self.gaps_us.items()})),
            "e2e_ms": _ms(summarize(e2e)),
            "hit_ratio": self.hit_ratio,
            "ideal_hit_ratio": self.ideal_hit_tokens / max(sum(r.prompt_tokens for r in self.records), 1),
            "preemptions": sum(w.preemptions for w in self.workers),
            "imbalance": max(loads) / mean if mean else 1.0,
            "workers": [_worker(w) for w in self.workers],
        }


def _ms(s: Summary) -> dict[str, float | int]:
    values = {name: getattr(s, name) * 1000.0 for name in ("mean", "p50", "p90", "p95", "p99", "max")}
    return {"count": s.count, **values}


def _worker(w: WorkerRecord) -> dict[str, Any]:
    out = {name: getattr(w, name) for name in WorkerRecord.__slots__ if name != "tiers"}
    if w.tiers is not None:
        out["tiers"] = _report(w.tiers)
    return out


def _report(report: Any) -> Any:  # noqa: ANN401 - nested frozen reports
    if not hasattr(report, "__slots__"):
        return report
    return {name: _report(getattr(report, name)) for name in report.__slots__}
