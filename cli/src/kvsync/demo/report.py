"""Builds the document of `report.json`.

Other programs read the keys of the document; docs/cli.md lists them.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from kvsync.demo.answers import count_answers, count_answers_after_kill
from kvsync.demo.next_steps import KeptRun, find_program, list_next_steps
from kvsync.demo.phase import PhaseResult
from kvsync.demo.routing import Explainer
from kvsync.demo.settings import BLOCK_SIZE, SCALE, DemoSettings, Workload
from kvsync.demo.verdict import judge
from kvsync.load.summary import hit_curve, ideal_curve
from kvsync.report.versions import collect_versions


def build_report(
    settings: DemoSettings, workload: Workload, results: Sequence[PhaseResult], kept: KeptRun | None = None
) -> dict[str, Any]:
    """Return the report as JSON values. Times are in seconds unless the key says ms, and ratios are from 0 to 1."""
    last = results[-1]
    killed = next((result for result in results if result.leg.kill), None)
    restart = _restart(killed, workload)
    verdict = judge(results, settings.engines)
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
        "policies": {result.leg.policy: _leg(result, workload) for result in results if not result.leg.kill},
        "ideal_hit_ratio": round(workload.ideal.hit_ratio, 6),
        "audit": _audit(last),
        "event_lag_ms": last.event_lag_ms,
        "restart": restart,
        "versions": collect_versions(last.core),
        "kept": None if kept is None else asdict(kept),
        "next": [
            {"purpose": purpose, "command": command}
            for purpose, command in list_next_steps(kept, settings.out, restart.get("publisher"), find_program())
        ],
        "passed": verdict.passed,
        "reasons": list(verdict.reasons),
        "note": verdict.note,
    }


def _leg(result: PhaseResult, workload: Workload) -> dict[str, Any]:
    summary = result.summary
    policy, ideal = result.leg.policy, workload.ideal.hit_tokens
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
        "answers": count_answers(result.outcomes, policy, BLOCK_SIZE).as_json(),
        "duration_s": round(summary.duration_s, 3),
        "by_endpoint": summary.by_endpoint,
        "by_policy": summary.by_policy,
        "by_reason": Explainer(policy, ideal).count(result.outcomes),
        "audit": _audit(result),
        "event_lag_ms": result.event_lag_ms,
        "hit_curve": hit_curve(result.outcomes),
        "ideal_curve": ideal_curve(result.outcomes, ideal),
        "publishers": publisher_curves(result),
        "moments": [[round(at_s, 3), text] for at_s, text in result.moments],
    }


def publisher_curves(result: PhaseResult, points: int = 200) -> dict[str, dict[str, list[Any]]]:
    """Return blocks, lag and state of each publisher over time, thinned to about `points` samples.

    Samples in which a publisher changes its state are never left out.
    """
    step = max(math.ceil(len(result.samples) / points), 1)
    curves: dict[str, dict[str, list[Any]]] = {}
    for number, sample in enumerate(result.samples):
        for row in sample.publishers:
            curve = curves.setdefault(row.name, {"at_s": [], "blocks": [], "lag": [], "lag_ms": [], "state": []})
            if number % step and curve["state"][-1:] == [row.state]:
                continue
            curve["at_s"].append(round(sample.at_s, 3))
            curve["blocks"].append(row.blocks)
            curve["lag"].append(row.lag)
            curve["lag_ms"].append(None if row.lag_s is None else round(row.lag_s * 1000, 3))
            curve["state"].append(row.state)
    return curves


def _audit(result: PhaseResult) -> dict[str, Any]:
    return {**asdict(result.audit), "failed": list(result.audit.failed)}


def _restart(result: PhaseResult | None, workload: Workload) -> dict[str, Any]:
    """What became of the leg with the kill: the restart as the index saw it, and the leg itself."""
    if result is None or result.restart is None:
        return {"performed": False, "detected_s": None, "rebuilt": False}
    restart, policy = result.restart, result.leg.policy

    def after(moment: float | None, since: float | None) -> float | None:
        return None if moment is None or since is None else round(moment - since, 3)

    return {
        "performed": True,
        "policy": policy,
        "publisher": restart.publisher,
        "killed_at_s": round(restart.killed_s, 3),
        "started_at_s": None if restart.started_s is None else round(restart.started_s, 3),
        "detected_s": after(restart.detected_s, restart.killed_s),
        "detected_as": restart.detected_as,
        "live_s": after(restart.live_s, restart.started_s),
        "blocks_before": restart.blocks_before,
        "blocks_after": restart.blocks_after,
        "rebuilt": restart.live_s is not None and result.audit.clean,
        "answers_after_kill": count_answers_after_kill(
            result.outcomes, policy, BLOCK_SIZE, restart.publisher, restart.killed_s
        ).as_json(),
        "examples": Explainer(policy, workload.ideal.hit_tokens).choose_examples(result.outcomes, restart.killed_s),
        "leg": _leg(result, workload),
    }
