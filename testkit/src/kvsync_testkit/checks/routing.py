"""The checker that judges a router by the outcomes of its requests (I13)."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvsync_testkit.checks.facts import Violation

OutcomeKind: TypeAlias = Literal["answered", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class RequestSent:
    """A client sent a request."""

    at_s: float
    request: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request ended for its client."""

    at_s: float
    request: int
    kind: OutcomeKind
    """`answered` with a status below 500, `refused` with one of 500 or more, `failed` without any status."""
    status: int = 0
    endpoint: str = ""


def check_one_outcome(
    sent: Sequence[RequestSent],
    outcomes: Sequence[Outcome],
    *,
    excused_s: tuple[float, float] | None = None,
    router: str = "router",
) -> list[Violation]:
    """I13: every request has exactly one outcome, and that outcome is an answer.

    A request that begins or ends between the two times of `excused_s`, for example while the router itself is killed,
    may be refused or fail. It still needs its one outcome.
    """
    counts = Counter(outcome.request for outcome in outcomes)
    known = {request.request: request.at_s for request in sent}
    found = [Violation("I13", router, f"request {one} has no outcome") for one in known if not counts[one]]
    found += [
        Violation("I13", router, f"request {one} has {count} outcomes") for one, count in counts.items() if count > 1
    ]
    found += [
        Violation("I13", router, f"an outcome of request {one}, which was not sent")
        for one in counts
        if one not in known
    ]
    for outcome in outcomes:
        if outcome.kind == "answered" or _overlaps(known.get(outcome.request, outcome.at_s), outcome.at_s, excused_s):
            continue
        what = f"ended with status {outcome.status}" if outcome.kind == "refused" else "ended without an answer"
        found.append(Violation("I13", router, f"request {outcome.request} {what} at {outcome.at_s:.3f} s"))
    return found


def check_no_departed_target(
    outcomes: Sequence[Outcome], gone_s: float, departed: Collection[str], within_s: float, router: str = "router"
) -> list[Violation]:
    """I13: later than `within_s` after an engine went, no request is answered in its name."""
    return [
        Violation("I13", router, f"request {one.request} went to {one.endpoint}, gone {one.at_s - gone_s:.3f} s before")
        for one in outcomes
        if one.endpoint in departed and one.at_s > gone_s + within_s
    ]


def _overlaps(began_s: float, ended_s: float, window_s: tuple[float, float] | None) -> bool:
    return window_s is not None and began_s <= window_s[1] and ended_s >= window_s[0]
