"""Builds the document of `report.json` and the verdict of a demo.

Other programs read the keys of the document; docs/cli.md lists them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvsync.demo.phase import PhaseResult
from kvsync.demo.settings import BLOCK_SIZE, SCALE, DemoSettings, Workload
from kvsync.load.summary import hit_curve, ideal_curve
from kvsync.report.versions import collect_versions

BASELINE = "round_robin"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the demo passed, with the reasons if it did not."""

    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether there is no reason for a failure."""
        return not self.reasons


def judge(results: Sequence[PhaseResult]) -> Verdict:
    """Return the verdict.

    A demo passes if every request was answered, every audit is clean, the index noticed the restart and rebuilt its
    entries, and `kv` had a higher hit ratio than round robin.
    """
    reasons: list[str] = []
    for result in results:
        if result.summary.failed:
            reasons.append(f"{result.policy}: {result.summary.failed} requests failed")
        if not result.audit.clean:
            trouble = "; ".join(result.audit.failed) or f"{result.audit.differences} differences"
            reasons.append(f"{result.policy}: the audit found {trouble}")
        if result.restart is not None and (result.restart.detected_s is None or result.restart.live_s is None):
            reasons.append(f"{result.policy}: the index did not notice the restart of {result.restart.publisher}")
    ratios = {result.policy: result.summary.hit_ratio for result in results}
    if BASELINE in ratios and "kv" in ratios and ratios["kv"] <= ratios[BASELINE]:
        reasons.append(
            f"the hit ratio of kv is not above that of round_robin ({ratios['kv']:.4f} against {ratios[BASELINE]:.4f})"
        )
    return Verdict(tuple(reasons))


def build_report(settings: DemoSettings, workload: Workload, results: Sequence[PhaseResult]) -> dict[str, Any]:
    """Return the report as JSON values. Times are in seconds unless the key says ms, and ratios are from 0 to 1."""
    last = results[-1]
    restarted = next((result for result in results if result.restart is not None), None)
    verdict = judge(results)
    return {
        "seed": settings.seed,
        "trace": str(settings.trace),
        "requests": len(workload.prompts),
        "reordered": workload.reordered,
        "engines": settings.engines,
        "blocks_per_engine": workload.blocks,
        "host_blocks_per_engine": settings.host_blocks,
        "block_size": BLOCK_SIZE,
        "scale": SCALE,
        "speed": round(workload.speed, 4),
        "time_scale": round(workload.time_scale, 8),
        "latency": dict(workload.latency),
        "policies": {result.policy: _policy(result, workload) for result in results},
        "ideal_hit_ratio": round(workload.ideal.hit_ratio, 6),
        "audit": _audit(last),
        "event_lag_ms": last.event_lag_ms,
        "restart": _restart(restarted),
        "versions": collect_versions(last.core),
        "passed": verdict.passed,
        "reasons": list(verdict.reasons),
    }


def _policy(result: PhaseResult, workload: Workload) -> dict[str, Any]:
    summary = result.summary
    return {
        "hit_ratio": round(summary.hit_ratio, 6),
        "ttft_ms": summary.ttft_ms,
        "failed": summary.failed,
        "requests": summary.requests,
        "reissued": summary.reissued,
        "prompt_tokens": summary.prompt_tokens,
        "cached_tokens": summary.cached_tokens,
        "tier_hit_tokens": result.tier_hit_tokens,
        "predictions": result.predictions,
        "duration_s": round(summary.duration_s, 3),
        "by_endpoint": summary.by_endpoint,
        "by_policy": summary.by_policy,
        "audit": _audit(result),
        "event_lag_ms": result.event_lag_ms,
        "hit_curve": hit_curve(result.outcomes),
        "ideal_curve": ideal_curve(result.outcomes, workload.ideal.hit_tokens),
        "publishers": publisher_curves(result),
        "moments": [[round(at_s, 3), text] for at_s, text in result.moments],
    }


def publisher_curves(result: PhaseResult, points: int = 200) -> dict[str, dict[str, list[Any]]]:
    """Return blocks, lag and state of each publisher over time, thinned to about `points` samples."""
    step = max(math.ceil(len(result.samples) / points), 1)
    curves: dict[str, dict[str, list[Any]]] = {}
    for sample in result.samples[::step]:
        for row in sample.publishers:
            curve = curves.setdefault(row.name, {"at_s": [], "blocks": [], "lag": [], "state": []})
            curve["at_s"].append(round(sample.at_s, 3))
            curve["blocks"].append(row.blocks)
            curve["lag"].append(row.lag)
            curve["state"].append(row.state)
    return curves


def _audit(result: PhaseResult) -> dict[str, Any]:
    return {**asdict(result.audit), "failed": list(result.audit.failed)}


def _restart(result: PhaseResult | None) -> dict[str, Any]:
    if result is None or result.restart is None:
        return {"performed": False, "detected_s": None, "rebuilt": False}
    restart = result.restart

    def after(moment: float | None, since: float | None) -> float | None:
        return None if moment is None or since is None else round(moment - since, 3)

    return {
        "performed": True,
        "policy": result.policy,
        "publisher": restart.publisher,
        "killed_at_s": round(restart.killed_s, 3),
        "started_at_s": None if restart.started_s is None else round(restart.started_s, 3),
        "detected_s": after(restart.detected_s, restart.killed_s),
        "detected_as": restart.detected_as,
        "live_s": after(restart.live_s, restart.started_s),
        "blocks_before": restart.blocks_before,
        "blocks_after": restart.blocks_after,
        "rebuilt": restart.live_s is not None and result.audit.clean,
    }
