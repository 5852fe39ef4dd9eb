"""The checkers I1 to I13 applied to what was observed of one fault."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvsync_testkit.chaos.backend import Pair
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.finalread import FinalRead
from kvsync_testkit.chaos.sampler import Look, applied, observed_lags
from kvsync_testkit.checks import (
    Sample,
    TrustSample,
    Violation,
    check_agreement,
    check_bounds,
    check_cleared,
    check_departure,
    check_epoch,
    check_isolation,
    check_no_false_positive,
    check_no_loss,
    check_non_interference,
    check_prefix_closure,
    check_sequence,
    check_staleness,
)
from kvsync_testkit.checks.routing import Outcome, RequestSent, check_no_departed_target, check_one_outcome

STALE_AFTER_S = 5.0
DEPARTED_WITHIN_S = 5.0
SLACK_S = 2.0
"""Time between two samples on a busy machine, in seconds."""
LAG_FLOOR_S = 1.0
LIMITS = {"memory of the index": float(1 << 30), "descriptors of the index": 1000.0}


@dataclass
class Evidence:
    """Everything that was observed of one fault; times in seconds since its history began."""

    pair: Pair
    injected_s: float
    healed_s: float
    recovered_s: float
    final: FinalRead
    looks: Sequence[Look] = ()
    sizes: Sequence[Sample] = ()
    sent: Sequence[RequestSent] = ()
    outcomes: Sequence[Outcome] = ()
    disagreements: Sequence[Violation] = ()
    """What was found wrong with the control engine during the fault."""
    compared_during: bool = True
    """The control engine was compared during the fault."""
    router_shares_index: bool = False
    silent: bool = True
    """Nothing at all reached the index from the affected engine during the fault."""


@dataclass
class Judgement:
    """What the checkers say."""

    violations: list[Violation] = field(default_factory=list)
    unchecked: dict[str, str] = field(default_factory=dict)


def judge(fault: Fault, evidence: Evidence) -> Judgement:
    """Apply the checker of every invariant that the fault promises to keep."""
    result = Judgement()
    for name in fault.keeps:
        _CHECKS[name](fault, evidence, result)
    return result


def _each_table(
    check: Callable[..., list[Violation]], _fault: Fault, evidence: Evidence, result: Judgement, name: str
) -> None:
    final = evidence.final
    if not any(final.truth.values()):
        result.unchecked[name] = "no engine holds a block"
    for engine, truth in final.truth.items():
        result.violations += check(engine, truth, final.index.get(engine, {}))


def _i1(fault: Fault, evidence: Evidence, result: Judgement) -> None:
    _each_table(check_agreement, fault, evidence, result, "I1")


def _i2(fault: Fault, evidence: Evidence, result: Judgement) -> None:
    _each_table(check_no_false_positive, fault, evidence, result, "I2")


def _i3(fault: Fault, evidence: Evidence, result: Judgement) -> None:
    _each_table(check_no_loss, fault, evidence, result, "I3")


def _i4(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    final = evidence.final
    changed = {name for name in final.after_poke if final.after_poke[name] != final.before_poke.get(name)}
    if not changed:
        result.unchecked["I4"] = "no events were announced at rest"
    result.violations += check_isolation(final.before_poke, final.after_poke, [final.poked])


def _i5(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    history = applied(evidence.looks)
    if len(history) < 5:
        result.unchecked["I5"] = f"only {len(history)} batches were seen to be applied"
    result.violations += check_sequence(history)


def _i6(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    final = evidence.final
    for engine, log in final.logs.items():
        stored = {entry.row for entry in log if entry.kind == "stored" and entry.row is not None}
        result.violations += check_epoch(engine, final.index.get(engine, {}), stored)


def _i7(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    final = evidence.final
    if not any(entry.kind == "cleared" for log in final.logs.values() for entry in log):
        result.unchecked["I7"] = "no engine was cleared"
    for engine, log in final.logs.items():
        result.violations += check_cleared(engine, final.index.get(engine, {}), log)


def _i8(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    if not any(answer.matched for answer in evidence.final.answers):
        result.unchecked["I8"] = "no query matched a block"
    result.violations += check_prefix_closure(evidence.final.answers, evidence.final.index)


def _i9(fault: Fault, evidence: Evidence, result: Judgement) -> None:
    samples = []
    for look in evidence.looks:
        for name, row in (look.rows or {}).items():
            age = row["age_s"]
            heard = look.at_s - age if age is not None else -1e9
            if (
                fault.silences
                and evidence.silent
                and name == evidence.pair.affected
                and evidence.injected_s < look.at_s < evidence.healed_s
            ):
                heard = min(heard, evidence.injected_s)
            samples.append(TrustSample(look.at_s, name, row["state"] == "live", heard))
    if not samples:
        result.unchecked["I9"] = "the index was never sampled"
    result.violations += check_staleness(samples, STALE_AFTER_S, SLACK_S)[:3]


def _i10(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    gone = evidence.pair.affected
    if not any(look.rows and look.at_s > evidence.injected_s + DEPARTED_WITHIN_S for look in evidence.looks):
        result.unchecked["I10"] = f"the index was not sampled later than {DEPARTED_WITHIN_S:g} s after the departure"
    seen = [(look.at_s, "is listed by the index") for look in evidence.looks if gone in (look.rows or {})]
    seen += [(one.at_s, "was routed to") for one in evidence.outcomes if one.endpoint == gone]
    result.violations += check_departure(gone, evidence.injected_s, seen, DEPARTED_WITHIN_S)


def _i11(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    result.violations += check_bounds(evidence.sizes, LIMITS)


def _i12(_fault: Fault, evidence: Evidence, result: Judgement) -> None:
    quiet: dict[str, list[float]] = {}
    during: dict[str, list[float]] = {}
    said = [
        (look.at_s, name, float(row["lag_s"]))
        for look in evidence.looks
        for name, row in (look.rows or {}).items()
        if row["lag_s"] is not None
    ]
    for at, name, lag in said + observed_lags(evidence.looks):
        into = quiet if at < evidence.injected_s else during if at < evidence.healed_s else None
        if into is not None and name != evidence.pair.affected:
            into.setdefault(name, []).append(lag)
    if not evidence.compared_during:
        result.unchecked["I12"] = "the control engine could not be compared during the fault"
    quiet = {name: lags for name, lags in quiet.items() if name == evidence.pair.control}
    result.violations += check_non_interference(quiet, during, 5.0, LAG_FLOOR_S, evidence.disagreements)


def _i13(fault: Fault, evidence: Evidence, result: Judgement) -> None:
    during = [one for one in evidence.sent if evidence.injected_s <= one.at_s <= evidence.recovered_s]
    if len(during) < 5:
        result.unchecked["I13"] = f"only {len(during)} requests were routed during the fault"
    down = fault.kind == "index_kill" and evidence.router_shares_index
    excused = (evidence.injected_s, evidence.recovered_s) if down else None
    result.violations += check_one_outcome(evidence.sent, evidence.outcomes, excused_s=excused)
    if fault.kind == "replace":
        departed = {evidence.pair.affected}
        result.violations += check_no_departed_target(
            evidence.outcomes, evidence.injected_s, departed, DEPARTED_WITHIN_S
        )


_CHECKS: dict[str, Callable[[Fault, Evidence, Judgement], None]] = {
    "I1": _i1, "I2": _i2, "I3": _i3, "I4": _i4, "I5": _i5, "I6": _i6, "I7": _i7, "I8": _i8, "I9": _i9, "I10": _i10,
    "I11": _i11, "I12": _i12, "I13": _i13,
}  # fmt: skip
