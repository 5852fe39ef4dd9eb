"""One replay in progress, and what is remembered from one replay to the next."""

from dataclasses import dataclass
from enum import Enum, auto

from kvsync_indexer.sync.states import SyncSettings


class Purpose(Enum):
    """Why a replay was asked for."""

    SYNC = auto()
    """From the start of a process's history. Trust waits for it."""
    CATCH_UP = auto()
    """From a little before the next expected batch. Trust waits for it."""
    VERIFY = auto()
    """The same range for a trusted publisher that is quiet. Nothing waits for it."""
    REPAIR = auto()
    """The whole history again, for a trusted publisher that is incomplete. Nothing waits for its first answer."""


@dataclass(slots=True)
class Session:
    """A replay request and its answers so far. Times are monotonic seconds."""

    attempt: int
    purpose: Purpose
    start: int
    deadline: float
    """When the attempt has been silent for too long; every answer moves it."""
    expect: int = -1
    """The last batch applied when the replay was requested: a server of the same process has it. -1 for none."""
    failures: int = 0
    """Attempts in a row that brought nothing new."""
    items: int = 0
    fresh: int = 0
    """Items of this attempt that were applied."""
    proven: bool = False
    """An item equalled a batch applied before: the same process is answering."""
    last_item: int = -1

    @property
    def absent(self) -> bool:
        """At the end marker: the server never came to a batch that its process must have."""
        return self.last_item < self.expect

    @property
    def required(self) -> bool:
        """Trust waits for this replay."""
        return self.purpose in (Purpose.SYNC, Purpose.CATCH_UP)


class Replays:
    """The replay in progress, if any, and what earlier ones have shown."""

    __slots__ = ("_attempt", "_overlap", "_timeout_s", "hole_at", "must_prove", "round_next", "session", "short_is_lie")

    def __init__(self, settings: SyncSettings) -> None:
        self._overlap = settings.overlap
        self._timeout_s = settings.replay_timeout_s
        self._attempt = 0
        self.session: Session | None = None
        self.must_prove = False
        """A replayed batch must equal an applied one before new ones are applied on top of it."""
        self.short_is_lie = False
        """This server has ended a replay before batches that exist: an early end proves nothing about its process."""
        self.round_next = -1
        """The next expected batch when the last further round was requested; a second one there would be useless."""
        self.hole_at = -1
        """The batch that a replay has already skipped once; skipped again, it was never sent."""

    @property
    def required(self) -> bool:
        """A replay is in progress and trust waits for it."""
        return self.session is not None and self.session.required

    def begin(self, purpose: Purpose, next_seq: int | None, now: float, failures: int) -> Session:
        """Begin an attempt; `next_seq` is the batch expected next, None if nothing is known of the stream.

        A catch-up from nothing is a sync.
        """
        if purpose is Purpose.CATCH_UP and next_seq is None:
            purpose = Purpose.SYNC
        whole = purpose in (Purpose.SYNC, Purpose.REPAIR)
        start = 0 if whole or next_seq is None else max(0, next_seq - self._overlap)
        expect = -1 if next_seq is None else next_seq - 1
        self._attempt += 1
        self.session = Session(self._attempt, purpose, start, now + self._timeout_s, expect, failures)
        return self.session

    def answered(self, attempt: int) -> Session | None:
        """Return the session that an answer belongs to; None if its attempt was abandoned."""
        return self.session if self.session is not None and self.session.attempt == attempt else None

    def extend(self, session: Session, now: float) -> None:
        """An answer came: the server is not silent, and may have more."""
        session.items += 1
        session.deadline = now + self._timeout_s
        self.short_is_lie = False

    def overdue(self, now: float) -> bool:
        """The server has been silent for `replay_timeout_s`."""
        return self.session is not None and now >= self.session.deadline

    def settled(self) -> None:
        """The stream is in sync: no replay is needed, and what earlier ones skipped no longer matters."""
        self.session = None
        self.round_next = self.hole_at = -1

    def link_up(self, next_seq: int | None) -> None:
        """A new link is up: whoever answers now must prove to be the process whose batches were applied."""
        self.short_is_lie = False
        self.must_prove = bool(next_seq)

    def forget(self) -> None:
        """Begin a new incarnation: there is nothing to prove."""
        self.must_prove = False
        self.round_next = self.hole_at = -1
