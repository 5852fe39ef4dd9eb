"""How far a publisher can be trusted, and why: its state, and the only place where the state changes."""

from kvsync_indexer.sync.actions import Log
from kvsync_indexer.sync.errors import ForbiddenTransitionError
from kvsync_indexer.sync.outbox import Outbox
from kvsync_indexer.sync.states import TRUSTED, Counters, State
from kvsync_indexer.sync.transitions import TRANSITIONS

_ALARMING = frozenset({State.GAP, State.RESTART, State.STALE, State.QUARANTINED})
"""States whose beginning is logged as a warning."""


class Standing:
    """State and identity of one publisher. All times are monotonic seconds.

    Other threads read the attributes when they answer queries; they are plain so that reading one is a single step.
    """

    __slots__ = (
        "_outbox", "counters", "epoch", "incarnation", "incomplete", "last_alive", "name", "reason", "since", "state",
        "waiting_since",
    )  # fmt: skip

    def __init__(self, name: str, epoch: str | None, outbox: Outbox, now: float) -> None:
        self._outbox = outbox
        self.name = name
        self.epoch = epoch
        """The identity that discovery gave, None without discovery."""
        self.incarnation = 0
        """How many processes the stream is known to have had before this one."""
        self.state = State.CONNECTING
        self.reason = "not connected yet"
        self.since = now
        self.waiting_since = now
        """When the publisher last lost trust, or began to catch up."""
        self.incomplete = True
        """The publisher may hold blocks that are not known here."""
        self.last_alive: float | None = None
        self.counters = Counters()

    @property
    def trusted(self) -> bool:
        """Every batch up to the last known one is applied."""
        return self.state in TRUSTED

    def go(self, state: State, reason: str, now: float) -> None:
        """Enter a state, or give a new reason for the present one.

        Raises:
            ForbiddenTransitionError: the table of transitions does not allow it.
        """
        before = self.state
        if state is before:
            self.reason = reason
            return
        if state not in TRANSITIONS[before]:
            raise ForbiddenTransitionError(f"{self.name}: {before} must not become {state} ({reason})")
        if before in TRUSTED:
            self.waiting_since = now
        level = "warning" if state in _ALARMING else "info"
        self.log(level, "publisher_state", before=str(before), after=str(state), reason=reason)
        self.state, self.reason, self.since = state, reason, now
        self.counters.transitions += 1

    def hear(self, at: float) -> None:
        """Record that the publisher was alive at this time."""
        if self.last_alive is None or at > self.last_alive:
            self.last_alive = at

    def log(self, level: str, event: str, **fields: object) -> None:
        """Add a log line about this publisher to the answer."""
        self._outbox.emit(Log(level, event, {"publisher": self.name, **fields}))
