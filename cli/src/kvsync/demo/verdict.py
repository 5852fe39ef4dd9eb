"""Decides whether a demo passed. Correctness decides; policies are compared only where that means something."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvsync.demo.phase import PhaseResult

BASELINE, COMPARED = "round_robin", "kv"
COMPARE_FROM = 300
"""Requests below which too few prompts have a common beginning for the policies to differ by more than chance."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the demo passed, with the reasons if it did not."""

    reasons: tuple[str, ...]
    note: str = ""
    """Why the hit ratios were not judged, if they were not."""

    @property
    def passed(self) -> bool:
        """Whether there is no reason for a failure."""
        return not self.reasons


def judge(results: Sequence[PhaseResult], engines: int) -> Verdict:
    """Return the verdict.

    A demo passes if every request was answered, every audit is clean, and the index noticed the kill and rebuilt its
    entries. From COMPARE_FROM requests on two engines, `kv` must also have a higher hit ratio than round robin.
    """
    reasons = [reason for result in results for reason in _faults(result)]
    ratios = {result.leg.policy: result.summary.hit_ratio for result in results if not result.leg.kill}
    if not {BASELINE, COMPARED} <= ratios.keys():
        return Verdict(tuple(reasons))
    note = _why_not_compared(results[0].summary.requests, engines)
    if not note:
        reasons += _compare(ratios)
    return Verdict(tuple(reasons), note)


def _faults(result: PhaseResult) -> list[str]:
    name, restart = result.leg.name, result.restart
    reasons = []
    if result.summary.failed:
        reasons.append(f"{name}: {result.summary.failed} requests failed")
    if not result.audit.clean:
        trouble = "; ".join(result.audit.failed) or f"{result.audit.differences} differences"
        reasons.append(f"{name}: the audit found {trouble}")
    if restart is not None and (restart.detected_s is None or restart.live_s is None):
        reasons.append(f"{name}: the index did not notice the restart of {restart.publisher}")
    return reasons


def _why_not_compared(requests: int, engines: int) -> str:
    if engines < 2:
        return "one engine leaves a router no choice, so the hit ratios of the policies are not judged"
    if requests < COMPARE_FROM:
        return (
            f"the comparison needs more requests: the hit ratios of the policies are judged from {COMPARE_FROM} "
            f"requests on, and this run had {requests}"
        )
    return ""


def _compare(ratios: Mapping[str, float]) -> list[str]:
    ours, theirs = ratios[COMPARED], ratios[BASELINE]
    if ours > theirs:
        return []
    return [f"the hit ratio of {COMPARED} is not above that of {BASELINE} ({ours:.4f} against {theirs:.4f})"]
