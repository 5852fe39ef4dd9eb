"""States, settings and counters of one publisher, as the machine keeps them and `/v1/publishers` shows them."""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How far a publisher's blocks can be trusted, and why."""

    CONNECTING = "connecting"
    """No connection: never made, or lost. What was known is kept and not trusted."""
    REPLAYING = "replaying"
    """Connected; history (or what was missed while away) is asked for or being applied."""
    LIVE = "live"
    """Every batch up to `last_seq` is applied. The only trusted state."""
    GAP = "gap"
    """Sequence numbers are missing; a replay is asked for."""
    RESTART = "restart"
    """The process behind the stream changed; its old blocks are gone; its history is asked for."""
    STALE = "stale"
    """No sign of life for `stale_after_s`."""
    QUARANTINED = "quarantined"
    """It sent what cannot be decoded; its sockets are closed until the back-off ends."""
    RESYNCING = "resyncing"
    """History is being applied after a gap, restart, silence or quarantine."""
    REMOVED = "removed"
    """It left. Nothing brings it back."""


TRUSTED = frozenset({State.LIVE})
SUSPECT = frozenset({State.LIVE, State.GAP, State.RESYNCING, State.REPLAYING, State.CONNECTING})
"""What `--trust suspect` matches as well: states in which the known blocks may be a little behind."""


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """Times in seconds on the monotonic clock; sizes in frames, sequence numbers or bytes."""

    replay: bool = True
    """The publisher has a replay endpoint."""
    stale_after_s: float = 10.0
    replay_timeout_s: float = 2.0
    """Longest silence inside one replay attempt."""
    replay_attempts: int = 3
    """Attempts without progress before a replay is given up."""
    replay_total_s: float = 60.0
    """Longest time a publisher stays distrusted because its replay trickles."""
    overlap: int = 8
    """Already applied batches asked for again, to prove that the same process is answering."""
    ring: int = 1024
    """Applied batches whose digests are kept."""
    buffer_frames: int = 16384
    buffer_bytes: int = 32 << 20
    gap_grace_s: float = 0.05
    """Without replay: how long a missing batch may still arrive out of order."""
    reconnect_s: float = 0.02
    reconnect_max_s: float = 2.0
    verify_after_s: float = 1.0
    """After a connection: one check that nothing slipped between the replay and the subscription."""
    verify_idle_s: float = 15.0
    """A quiet publisher is asked this often whether its last batch is still the last one known here."""
    repair_s: float = 5.0
    repair_max_s: float = 60.0
    """Back-off of attempts to complete a history that an unreachable replay server left incomplete."""
    repairs: int = 3
    """The same where the server answers: so often for one process, and no more once it has shown no older batch."""
    quarantine_s: float = 1.0
    quarantine_max_s: float = 60.0
    quarantine_reset_s: float = 60.0
    """Good behaviour for this long forgets earlier quarantines."""
    poison_limit: int = 8
    """Undecodable batches skipped in one resync before the publisher is quarantined again."""
    flap_limit: int = 6
    flap_window_s: float = 10.0
    """More in-band restarts than `flap_limit` in this window are two publishers on one endpoint, or lies."""


@dataclass(slots=True)
class Counters:
    """What happened to one publisher since it was added (never reset by an epoch)."""

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
    """One publisher at one moment; `age_s` bounds the time since its last sign of life."""

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
