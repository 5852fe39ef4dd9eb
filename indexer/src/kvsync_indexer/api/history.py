"""`GET /v1/history`: what the index did lately, for pages that are opened later. Times are Unix times in seconds."""

import msgspec


class HistoryPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The index over one interval, which ended at `at`. Rates and percentiles are of that interval only."""

    at: float
    publishers: int
    live: int
    """Publishers in the state `live`."""
    blocks: int
    """Resident blocks of all publishers."""
    lag: int
    """Batches that were known to exist and had not been applied, summed over the publishers."""
    events_per_s: float
    received_bytes_per_s: float
    matches_per_s: float
    arrival_p50_s: float | None
    """From the making of a batch to its arrival; null if no batch arrived in the interval."""
    visible_p99_s: float | None
    """From the making of a batch until queries can match it; null if no batch arrived in the interval."""
    predicted_tokens: int
    """Tokens that routers predicted to be cached, in the requests that they reported in the interval."""
    cached_tokens: int
    """Tokens that the engines found cached in these requests."""
    over_tokens: int
    """Tokens that were predicted and not cached."""
    under_tokens: int
    """Tokens that were cached and not predicted."""


class Transition(msgspec.Struct, frozen=True):
    """One change of a publisher's state."""

    at: float
    publisher: str
    before: str
    after: str
    reason: str


class HistoryAnswer(msgspec.Struct):
    """Points and transitions in the order of time, both bounded: the oldest ones are left out."""

    started_at: float
    """When this process began to record. It changes when the index restarts."""
    interval_s: float
    """Time between two points."""
    points: list[HistoryPoint]
    transitions: list[Transition]
    transitions_dropped: int
    """Transitions since the start that the list no longer holds."""
