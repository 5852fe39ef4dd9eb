"""The checker that judges a router by the outcomes of its requests (I13)."""

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

    def __str__(self) -> str:
        return f"{self.at_s:.3f} s: request {self.request} sent"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A request ended for its client."""

    at_s: float
    request: int
    kind: OutcomeKind
    """`answered` with a status below 500, `refused` with one of 500 or more, `failed` without any status."""
    status: int = 0
    endpoint: str = ""

    def __str__(self) -> str:
        status = f" with {self.status}" if self.status else ""
        by = f" by {self.endpoint}" if self.endpoint else ""
        return f"{self.at_s:.3f} s: request {self.request} {self.kind}{status}{by}"


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
    asked = {request.request: request for request in sent}
    ended: dict[int, list[Outcome]] = {one: [] for one in asked}
    for outcome in outcomes:
        ended.setdefault(outcome.request, []).append(outcome)
    found = []
    for one, ends in ended.items():
        detail = _fault_of(one, asked.get(one), ends, excused_s)
        if detail:
            evidence = (*((asked[one],) if one in asked else ()), *ends)
            found.append(Violation("I13", router, detail, evidence))
    return found


def _fault_of(
    number: int, request: RequestSent | None, ends: Sequence[Outcome], excused_s: tuple[float, float] | None
) -> str:
    """Return what is wrong with the outcomes of one request; empty if nothing is."""
    if request is None:
        return f"an outcome of request {number}, which was not sent"
    if len(ends) != 1:
        return f"request {number} has {len(ends) or 'no'} outcome{'s' if ends else ''}"
    (outcome,) = ends
    if outcome.kind == "answered" or _overlaps(request.at_s, outcome.at_s, excused_s):
        return ""
    what = f"ended with status {outcome.status}" if outcome.kind == "refused" else "ended without an answer"
    return f"request {number} {what} at {outcome.at_s:.3f} s"


def check_no_departed_target(
    outcomes: Sequence[Outcome], gone_s: float, departed: Collection[str], within_s: float, router: str = "router"
) -> list[Violation]:
    """I13: later than `within_s` after an engine went, no request is answered in its name."""
    return [
        Violation(
            "I13",
            router,
            f"request {one.request} went to {one.endpoint}, gone {one.at_s - gone_s:.3f} s before",
            (one,),
        )
        for one in outcomes
        if one.endpoint in departed and one.at_s > gone_s + within_s
    ]


def _overlaps(began_s: float, ended_s: float, window_s: tuple[float, float] | None) -> bool:
    return window_s is not None and began_s <= window_s[1] and ended_s >= window_s[0]
