"""What every part of the machine shares: its fields, transitions, and the list of actions being built."""

from collections import deque

from kvsync_indexer.sync.actions import Action, Apply, CancelReplay, Clear, Log, RequestReplay
from kvsync_indexer.sync.buffer import LiveBuffer
from kvsync_indexer.sync.position import Position
from kvsync_indexer.sync.session import Purpose, Session
from kvsync_indexer.sync.states import TRUSTED, Counters, PublisherStatus, State, SyncSettings


class MachineBase:
    """Fields and helpers. `now` is always monotonic seconds, handed in."""

    def __init__(self, name: str, settings: SyncSettings, *, now: float, epoch: str | None = None) -> None:
        self.name = name
        self.settings = settings
        self.epoch = epoch
        self.incarnation = 0
        self.state = State.CONNECTING
        self.reason = "not connected yet"
        self.since = now
        self.link = 0
        self.incomplete = True
        self.counters = Counters()
        self.position = Position(settings.ring)
        self.buffer = LiveBuffer(settings.buffer_frames, settings.buffer_bytes)
        self.session: Session | None = None
        self.highest = -1
        self.last_alive: float | None = None
        self._out: list[Action] = []
        self._run: list[bytes] = []
        self._run_first = 0
        self._attempt = 0
        self._linked = False
        self._must_prove = False
        self._link_verified = False
        self._link_next = 0
        self._short_is_lie = False
        self._last_frame = now
        self._last_verify = now
        self._live_at = now
        self._waiting_since = now
        self._round_next = -1
        self._hole_at = -1
        self._reconnect_at: float | None = None
        self._reconnect_s = settings.reconnect_s
        self._grace_until: float | None = None
        self._repair_at: float | None = None
        self._repair_s = settings.repair_s
        self._repairs_left = settings.repairs
        self._quarantine_until: float | None = None
        self._quarantine_s = settings.quarantine_s
        self._poison = 0
        self._turned = 0
        self._flaps: deque[float] = deque(maxlen=settings.flap_limit)

    @property
    def trusted(self) -> bool:
        """Every batch up to the last known one is applied."""
        return self.state in TRUSTED

    @property
    def next_seq(self) -> int:
        """The sequence number expected next."""
        return self.position.next_seq

    def status(self, now: float) -> PublisherStatus:
        """The machine at this moment."""
        last = self.position.last_seq
        self.counters.buffer_dropped = self.buffer.dropped
        return PublisherStatus(
            state=self.state,
            reason=self.reason,
            epoch=self.epoch,
            incarnation=self.incarnation,
            last_seq=last,
            lag=max(0, self.highest - (-1 if last is None else last)),
            age_s=None if self.last_alive is None else max(0.0, now - self.last_alive),
            incomplete=self.incomplete,
            buffered=len(self.buffer),
            counters=self.counters,
        )

    # -- building the answer ------------------------------------------------------------------------------------

    def _emit(self, action: Action) -> None:
        self._flush()
        self._out.append(action)

    def _flush(self) -> None:
        if self._run:
            self._out.append(Apply(self._run_first, tuple(self._run)))
            self._run = []

    def _done(self) -> list[Action]:
        self._flush()
        out, self._out = self._out, []
        return out

    def _log(self, level: str, event: str, **fields: object) -> None:
        self._emit(Log(level, event, {"publisher": self.name, **fields}))

    def _apply(self, seq: int, payload: bytes) -> None:
        if not self._run:
            self._run_first = seq
        elif seq != self._run_first + len(self._run):
            self._flush()
            self._run_first = seq
        self._run.append(payload)
        self.position.accept(seq, payload)
        self.counters.applied += 1
        self.highest = max(self.highest, seq)

    # -- transitions --------------------------------------------------------------------------------------------

    def _go(self, state: State, reason: str, now: float) -> None:
        self.reason = reason
        if state is self.state:
            return
        level = "warning" if state in (State.GAP, State.RESTART, State.STALE, State.QUARANTINED) else "info"
        if self.state in TRUSTED:
            self._waiting_since = now
        self._log(level, "publisher_state", before=str(self.state), after=str(state), reason=reason)
        self.state = state
        self.since = now
        self.counters.transitions += 1

    def _clear(self, reason: str) -> None:
        """Forget the blocks. Emitted even when none are known: the driver knows, the machine does not."""
        self.counters.clears += 1
        self._turned = 0
        self._emit(Clear(reason))

    def _cancel(self) -> None:
        if self.session is not None:
            self.session = None
            self._emit(CancelReplay())

    def _forget(self) -> None:
        """A new incarnation: nothing of the stream so far says anything about what follows."""
        self.incarnation += 1
        self.position.reset()
        self.buffer.clear()
        self.highest = -1
        self._must_prove = False
        self._link_next = 0
        self._hole_at = self._round_next = -1
        self._grace_until = self._repair_at = None
        self._repair_s = self.settings.repair_s
        self._repairs_left = self.settings.repairs

    def _request(self, purpose: Purpose, now: float, failures: int = 0) -> None:
        known = self.position.known
        if purpose is Purpose.CATCH_UP and not known:
            purpose = Purpose.SYNC
        whole = purpose in (Purpose.SYNC, Purpose.REPAIR)
        start = 0 if whole or not known else max(0, self.position.next_seq - self.settings.overlap)
        self._attempt += 1
        self.counters.replays += 1
        deadline = now + self.settings.replay_timeout_s
        expect = self.position.next_seq - 1 if known else -1
        self.session = Session(self._attempt, purpose, start, now, deadline, expect, failures)
        self._emit(RequestReplay(self._attempt, start))

    def _hear(self, now: float) -> None:
        if self.last_alive is None or now > self.last_alive:
            self.last_alive = now
