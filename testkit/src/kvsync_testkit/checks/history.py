"""The history of a run: everything that the checkers are told, in one object that `judge` takes.

A test fills in what it observed and leaves out the rest. An invariant for which a history has no facts is reported as
unchecked and never as kept. Times are seconds on one monotonic clock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kvsync_testkit.checks.facts import Answer, AppliedBatch, Forgotten, Rows, Sample, Sighting, Transition, TrustSample
from kvsync_testkit.checks.routing import Outcome, RequestSent


@dataclass(frozen=True, slots=True)
class Isolated:
    """The index's tables before and after events of the `touched` publishers, for I4."""

    before: Mapping[str, Rows]
    after: Mapping[str, Rows]
    touched: Collection[str]


@dataclass(slots=True)
class History:
    """What was observed, by publisher where a mapping has strings as keys."""

    truth: Mapping[str, Rows] = field(default_factory=dict)
    """The engines' own block tables at the end (I1, I2, I3)."""
    index: Mapping[str, Rows] = field(default_factory=dict)
    """The index's tables at the end (I1, I2, I3, I6, I7, I8)."""
    logs: Mapping[str, Sequence[Transition]] = field(default_factory=dict)
    """The transition log of the process of each publisher that lives at the end (I6, I7)."""
    isolated: Sequence[Isolated] = ()
    """Comparisons around events of chosen publishers (I4)."""
    applied: Sequence[AppliedBatch | Forgotten] = ()
    """What the index applied and dropped, in order (I5)."""
    answers: Sequence[Answer] = ()
    """Matches at the end (I8)."""
    trust: Sequence[TrustSample] = ()
    """Whether publishers were matched, and when they were last heard (I9)."""
    departed: Mapping[str, float] = field(default_factory=dict)
    """When each deleted publisher went (I10, I13)."""
    seen: Sequence[Sighting] = ()
    """When something of a publisher was seen: a route, an entry in the index (I10)."""
    sizes: Sequence[Sample] = ()
    """Measured sizes such as queues, memory and descriptors (I11)."""
    quiet_lags_s: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Event lags of unfaulted publishers before the fault (I12)."""
    lags_s: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Event lags of unfaulted publishers during the fault (I12)."""
    sent: Sequence[RequestSent] = ()
    """Requests to the router (I13)."""
    outcomes: Sequence[Outcome] = ()
    """How requests ended for their clients (I13)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds that the system under test promises. The defaults are those of kvsync."""

    stale_after_s: float = 5.0
    """I9: silence after which a publisher may no longer be matched."""
    sampling_s: float = 0.0
    """I9: time between two samples, by which a sample may come late."""
    departed_within_s: float = 5.0
    """I10, I13: time from the deletion of a publisher until nothing of it is seen."""
    sizes: Mapping[str, float] = field(default_factory=dict)
    """I11: the limit of each named size."""
    growth_per_s: float | None = None
    """I11: the steepest slope of a size over the run."""
    lag_factor: float = 2.0
    """I12: factor by which the 99th percentile of lag may grow during a fault."""
    lag_floor_s: float = 0.02
    """I12: lag below which nothing counts as disturbed."""
    copies: bool = True
    """I1: the numbers of copies must agree as well."""
    excused_s: tuple[float, float] | None = None
    """I13: the time in which the router itself was down."""
