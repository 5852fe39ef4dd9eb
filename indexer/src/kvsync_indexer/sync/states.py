"""The states, settings and counters of one publisher, which `/v1/publishers` shows."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How far a publisher's blocks can be trusted, and why."""

    CONNECTING = "connecting"
    """No connection: never made, or lost. What was known is kept and not trusted."""
    REPLAYING = "replaying"
    """Connected; the history, or what was missed while disconnected, is being requested or applied."""
    LIVE = "live"
    """Every batch up to `last_seq` is applied. The only trusted state."""
    GAP = "gap"
    """Sequence numbers are missing; a replay was requested."""
    RESTART = "restart"
    """Another process is behind the stream; the old blocks are dropped and its history was requested."""
    STALE = "stale"
    """No sign of life for `stale_after_s`."""
    QUARANTINED = "quarantined"
    """It sent something that cannot be decoded; its sockets are closed until the back-off ends."""
    RESYNCING = "resyncing"
    """The history is being applied again after a gap, a restart, a silence or a quarantine."""
    REMOVED = "removed"
    """It left, for good."""


TRUSTED = frozenset({State.LIVE})
SUSPECT = frozenset({State.LIVE, State.GAP, State.RESYNCING, State.REPLAYING, State.CONNECTING})
"""What `--trust suspect` matches: also the states in which the known blocks may be a little behind."""


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """Times in seconds on the monotonic clock; sizes in frames, sequence numbers or bytes."""

    replay: bool = True
    """The publisher has a replay endpoint."""
    stale_after_s: float = 10.0
    replay_timeout_s: float = 2.0
    """The longest silence within one replay attempt."""
    replay_attempts: int = 3
    """Attempts without progress after which the replay is given up."""
    replay_total_s: float = 60.0
    """The longest time for which a slow replay keeps a publisher from being trusted."""
    overlap: int = 8
    """Batches already applied that are requested again, to prove that the same process answers."""
    ring: int = 1024
    """Applied batches whose digests are remembered."""
    buffer_frames: int = 16384
    buffer_bytes: int = 32 << 20
    gap_grace_s: float = 0.05
    """Without a replay endpoint: how long a missing batch may still arrive out of order."""
    reconnect_s: float = 0.02
    reconnect_max_s: float = 2.0
    verify_after_s: float = 1.0
    """When a new connection is checked for batches lost between the replay and the subscription."""
    verify_idle_s: float = 15.0
    """How often a quiet publisher is asked whether its last batch is the last one known here."""
    verify_doubt_s: float = 0.75
    """How soon to ask again after a check has found batches that did not arrive live."""
    repair_s: float = 5.0
    repair_max_s: float = 60.0
    """The longest pause between attempts to complete a history after the replay server could not be reached."""
    repairs: int = 3
    """Attempts per process if the server answers; none follows once it has shown that it has no older batch."""
    quarantine_s: float = 1.0
    quarantine_max_s: float = 60.0
    quarantine_reset_s: float = 60.0
    """Good behaviour for this long makes earlier quarantines forgotten."""
    poison_limit: int = 8
    """Undecodable batches that one resync may skip before the publisher is quarantined again."""
    flap_limit: int = 6
    flap_window_s: float = 10.0
    """More restarts than `flap_limit` seen in the stream in this time mean two publishers on one endpoint, or lies."""


@dataclass(slots=True)
class Counters:
    """What happened to one publisher since it was added; a new epoch resets nothing."""

    frames: int = 0
    applied: int = 0
    duplicates: int = 0
    late: int = 0
    fenced: int = 0
    gaps: int = 0
    missed: int = 0
    resyncs: int = 0
    restarts: int = 0
    epochs: int = 0
    truncations: int = 0
    replays: int = 0
    replay_failures: int = 0
    replay_items: int = 0
    replay_lies: int = 0
    buffer_dropped: int = 0
    decode_errors: int = 0
    quarantines: int = 0
    stales: int = 0
    disconnects: int = 0
    transitions: int = 0
    clears: int = 0


@dataclass(frozen=True, slots=True)
class PublisherStatus:
    """One publisher at one moment; `age_s` is an upper bound of the time since its last sign of life."""

    state: State
    reason: str
    epoch: str | None
    incarnation: int
    last_seq: int | None
    lag: int
    age_s: float | None
    incomplete: bool
    buffered: int
    counters: Counters
