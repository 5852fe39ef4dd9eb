"""From a history to verdicts: one for each invariant, with the first counter-example and the facts that make it up."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvsync_testkit.checks.contents import (
    check_agreement,
    check_cleared,
    check_epoch,
    check_isolation,
    check_no_false_positive,
    check_no_loss,
)
from kvsync_testkit.checks.facts import Violation
from kvsync_testkit.checks.histories import (
    check_bounds,
    check_departure,
    check_non_interference,
    check_prefix_closure,
    check_sequence,
    check_staleness,
)
from kvsync_testkit.checks.history import History, Limits
from kvsync_testkit.checks.routing import check_no_departed_target, check_one_outcome
from kvsync_testkit.errors import InvariantError
from kvsync_testkit.naming import unknown_name

_Check: TypeAlias = Callable[[History, Limits], list[Violation]]
_Missing: TypeAlias = Callable[[History, Limits], str]
"""Says why there is nothing to check; empty if there is something."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history says about one invariant."""

    invariant: str
    outcome: Literal["kept", "violated", "unchecked"]
    violations: tuple[Violation, ...] = ()
    reason: str = ""
    """Why nothing could be checked."""

    @property
    def kept(self) -> bool:
        """Whether facts were there to check, and all of them keep the promise."""
        return self.outcome == "kept"

    @property
    def counterexample(self) -> Violation | None:
        """The first violation, with the facts that break the promise on their own in `evidence`."""
        return self.violations[0] if self.violations else None

    def require(self) -> None:
        """Do nothing if the promise was kept.

        Raises:
            InvariantError: it was violated, or the history has no facts about it.
        """
        if not self.kept:
            raise InvariantError(str(self))

    def __str__(self) -> str:
        if self.counterexample is None:
            return f"{self.invariant} {self.outcome}" + (f": {self.reason}" if self.reason else "")
        first = self.counterexample
        more = f" (and {len(self.violations) - 1} more)" if len(self.violations) > 1 else ""
        lines = [f"{self.invariant} violated by {first.publisher}: {first.detail}{more}"]
        return "\n    ".join([*lines, *map(str, first.evidence)])


def judge(history: History, invariants: Iterable[str] | None = None, limits: Limits | None = None) -> list[Verdict]:
    """Judge a history, by default on all invariants from I1 to I13.

    Args:
        history: What was observed.
        invariants: Those to judge, in this order. Name only those that the run promised: a run that lost events beyond
            the replay buffer, for example, promises I2 and not I1.
        limits: The bounds of the system under test.

    Raises:
        ConfigurationError: a name that is no invariant.
    """
    names = list(_CHECKS) if invariants is None else list(invariants)
    for name in names:
        if name not in _CHECKS:
            raise unknown_name("invariant", name, _CHECKS)
    return [_judge_one(name, history, limits or Limits()) for name in names]


def require_kept(history: History, invariants: Iterable[str], limits: Limits | None = None) -> None:
    """Fail with every verdict that is not "kept".

    Raises:
        InvariantError: at least one of the invariants was violated, or could not be checked.
        ConfigurationError: a name that is no invariant.
    """
    broken = [verdict for verdict in judge(history, invariants, limits) if not verdict.kept]
    if broken:
        raise InvariantError("\n".join(map(str, broken)))


def _judge_one(name: str, history: History, limits: Limits) -> Verdict:
    missing, check = _CHECKS[name]
    reason = missing(history, limits)
    if reason:
        return Verdict(name, "unchecked", reason=reason)
    found = tuple(check(history, limits))
    return Verdict(name, "violated" if found else "kept", found)


def _needs(*fields: str) -> _Missing:
    """A function that says which of these fields of a history are empty."""

    def missing(history: History, _limits: Limits) -> str:
        empty = [name for name in fields if not getattr(history, name)]
        return f"the history has no {' and no '.join(empty)}" if empty else ""

    return missing


def _needs_blocks(history: History, _limits: Limits) -> str:
    held = any(history.truth.values()) or any(history.index.values())
    return "" if history.truth and held else "neither an engine nor the index holds a block"


def _needs_clear(history: History, limits: Limits) -> str:
    cleared = any(entry.kind == "cleared" for log in history.logs.values() for entry in log)
    return _needs("index", "logs")(history, limits) or ("" if cleared else "no engine was cleared")


def _needs_match(history: History, _limits: Limits) -> str:
    return "" if any(answer.matched for answer in history.answers) else "no query matched a block"


def _needs_limits(history: History, limits: Limits) -> str:
    return _needs("sizes")(history, limits) or ("" if limits.sizes else "no size has a limit")


def _tables(check: Callable[..., list[Violation]]) -> _Check:
    def each(history: History, _limits: Limits) -> list[Violation]:
        names = sorted(set(history.truth) | set(history.index))
        return [one for name in names for one in check(name, history.truth.get(name, {}), history.index.get(name, {}))]

    return each


def _agreement(history: History, limits: Limits) -> list[Violation]:
    return _tables(lambda name, truth, index: check_agreement(name, truth, index, copies=limits.copies))(
        history, limits
    )


def _isolation(history: History, _limits: Limits) -> list[Violation]:
    return [one for case in history.isolated for one in check_isolation(case.before, case.after, case.touched)]


def _epoch(history: History, _limits: Limits) -> list[Violation]:
    found = []
    for name, log in history.logs.items():
        stored = {entry.row for entry in log if entry.kind == "stored" and entry.row is not None}
        found += check_epoch(name, history.index.get(name, {}), stored)
    return found


def _cleared(history: History, _limits: Limits) -> list[Violation]:
    return [one for name, log in history.logs.items() for one in check_cleared(name, history.index.get(name, {}), log)]


def _departure(history: History, limits: Limits) -> list[Violation]:
    found = []
    for name, gone_s in history.departed.items():
        seen = [(sighting.at_s, sighting.what) for sighting in history.seen if sighting.publisher == name]
        found += check_departure(name, gone_s, seen, limits.departed_within_s)
    return found


def _interference(history: History, limits: Limits) -> list[Violation]:
    return check_non_interference(history.quiet_lags_s, history.lags_s, limits.lag_factor, limits.lag_floor_s)


def _routing(history: History, limits: Limits) -> list[Violation]:
    found = check_one_outcome(history.sent, history.outcomes, excused_s=limits.excused_s)
    for name, gone_s in history.departed.items():
        found += check_no_departed_target(history.outcomes, gone_s, {name}, limits.departed_within_s)
    return found


_CHECKS: Mapping[str, tuple[_Missing, _Check]] = {
    "I1": (_needs_blocks, _agreement),
    "I2": (_needs_blocks, _tables(check_no_false_positive)),
    "I3": (_needs_blocks, _tables(check_no_loss)),
    "I4": (_needs("isolated"), _isolation),
    "I5": (_needs("applied"), lambda history, _: check_sequence(history.applied)),
    "I6": (_needs("index", "logs"), _epoch),
    "I7": (_needs_clear, _cleared),
    "I8": (_needs_match, lambda history, _: check_prefix_closure(history.answers, history.index)),
    "I9": (_needs("trust"), lambda history, top: check_staleness(history.trust, top.stale_after_s, top.sampling_s)),
    "I10": (_needs("departed", "seen"), _departure),
    "I11": (_needs_limits, lambda history, top: check_bounds(history.sizes, top.sizes, top.growth_per_s)),
    "I12": (_needs("quiet_lags_s"), _interference),
    "I13": (_needs("sent"), _routing),
}
