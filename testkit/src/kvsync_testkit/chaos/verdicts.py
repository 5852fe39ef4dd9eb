"""How observations become verdicts. A fault without a confirmed injection can never pass."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from kvsync_testkit.checks import Violation


class Injection(StrEnum):
    """Whether the fault was in place, by an independent probe."""

    CONFIRMED = "Confirmed"
    MISMATCH = "Mismatch"
    """The probe contradicts the backend: the affected pair is healthy, or the control pair is not."""
    INCONCLUSIVE = "Inconclusive"
    """The probe could not tell."""


class Verdict(StrEnum):
    """The verdict on one fault."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped(capability)"


@dataclass(frozen=True)
class Observation:
    """What a probe saw on the affected and on the control pair; None where it could not tell."""

    affected: bool | None
    """The fault shows on the affected pair."""
    control: bool | None
    """The fault shows on the control pair, which must be False."""
    detail: Mapping[str, Any] = field(default_factory=dict)


def judge_injection(before: Observation, during: Observation) -> tuple[Injection, str]:
    """Return whether the fault was injected, and why it is not confirmed.

    `before` is the same probe before the injection. It must see both pairs healthy, or it proves nothing.
    """
    if before.affected is not False or before.control is not False:
        return Injection.INCONCLUSIVE, f"the probe did not see both pairs healthy before the injection: {before}"
    if during.affected is None or during.control is None:
        return Injection.INCONCLUSIVE, f"the probe could not tell: {during}"
    if not during.affected:
        return Injection.MISMATCH, f"the affected pair is healthy: {dict(during.detail)}"
    if during.control:
        return Injection.MISMATCH, f"the fault reached the control pair: {dict(during.detail)}"
    return Injection.CONFIRMED, ""


@dataclass
class Report:
    """What is reported on one fault."""

    name: str
    backend: str
    breaks: str
    verdict: Verdict = Verdict.FAILED
    injection: Injection = Injection.INCONCLUSIVE
    detected_s: float | None = None
    """From the injection until the index no longer called the engine live, or counted what happened to it."""
    recovered_s: float | None = None
    """From the healing until the index was at the engines' last batches again."""
    invariants: dict[str, str] = field(default_factory=dict)
    """By invariant: `kept`, `violated`, or `not promised`."""
    reason: str = ""
    proof: dict[str, Any] = field(default_factory=dict)
    timeline: dict[str, float] = field(default_factory=dict)
    """Seconds since the start of the fault's run: injected, detected, healed, recovered, ended."""
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """By name: (seconds, value)."""
    requests: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self) | {"verdict": str(self.verdict), "injection": str(self.injection)}


MOST_REASONS = 10


def decide(
    report: Report,
    promised: Sequence[str],
    violations: Sequence[Violation],
    unchecked: Mapping[str, str],
    reasons: Sequence[str],
) -> None:
    """Set the verdict, the invariants and the reason of a report whose injection has been judged.

    Args:
        report: The report to complete.
        promised: The invariants that the fault must leave intact.
        violations: What the checkers found.
        unchecked: Promised invariants about which nothing was observed, with the reason. They fail the fault.
        reasons: Other reasons for which the fault fails, such as a recovery that took too long.
    """
    broken = {one.invariant for one in violations}
    every = [f"I{number}" for number in range(1, 14)]
    report.invariants = {
        name: "violated" if name in broken else "not checked" if name in unchecked else "kept"
        for name in every
        if name in promised
    } | {name: "not promised" for name in every if name not in promised}
    why = list(reasons)
    why += _one_per_invariant_first([one for one in violations if one.invariant in promised])
    why += [f"{name} was not checked: {text}" for name, text in unchecked.items() if name in promised]
    if report.injection is not Injection.CONFIRMED:
        why.insert(0, f"the injection is {report.injection}")
    report.verdict = Verdict.FAILED if why else Verdict.PASSED
    report.reason = "; ".join(([report.reason] if report.reason else []) + why[:MOST_REASONS])


def _one_per_invariant_first(violations: Sequence[Violation]) -> list[str]:
    """Return the violations as text, so that a reason which is cut off still names every invariant."""
    first = {one.invariant: one for one in reversed(violations)}
    return [str(one) for one in first.values()][::-1] + [
        str(one) for one in violations if first[one.invariant] is not one
    ]
