"""The publisher state machine: one publisher's inputs in, typed actions out; no socket, no clock.

A *link* is the life of one TCP connection. When it ends, the machine requests a fresh socket under a new number, so
that nothing which an earlier process sent can arrive after something that a later one sent.
`docs/design/sync-protocol.md` has the diagram and the reasons.
"""

from kvsync_indexer.sync.actions import Action, Apply, Connect, Disconnect, Remove
from kvsync_indexer.sync.catch_up import CatchUp
from kvsync_indexer.sync.live import LiveBatches
from kvsync_indexer.sync.parts import Parts
from kvsync_indexer.sync.position import Position
from kvsync_indexer.sync.recovery import Recovery
from kvsync_indexer.sync.session import Purpose
from kvsync_indexer.sync.states import Counters, PublisherStatus, State, SyncSettings

_DEAF = frozenset({State.QUARANTINED, State.REMOVED})
"""Nothing that arrives counts."""


class PublisherMachine:
    """Follows one publisher. Each input returns the actions to carry out, in order; `now` is monotonic seconds."""

    def __init__(self, name: str, settings: SyncSettings, *, now: float, epoch: str | None = None) -> None:
        parts = Parts.assemble(name, settings, now, epoch)
        self.settings = settings
        self.standing = parts.standing
        self.stream = parts.stream
        self.connection = parts.connection
        self.replays = parts.replays
        self.verification = parts.verification
        self.repair = parts.repair
        self.quarantine = parts.quarantine
        self.recovery = Recovery(parts)
        self.catch_up = CatchUp(parts, self.recovery)
        self.live = LiveBatches(parts, self.recovery)
        self._outbox = parts.outbox

    # -- what is known ------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The publisher's name."""
        return self.standing.name

    @property
    def state(self) -> State:
        """See `Standing`, for this and the following."""
        return self.standing.state

    @property
    def reason(self) -> str:
        """Why the publisher is in this state."""
        return self.standing.reason

    @property
    def trusted(self) -> bool:
        """Every batch up to the last known one is applied."""
        return self.standing.trusted

    @property
    def incomplete(self) -> bool:
        """The publisher may hold blocks that are not known here."""
        return self.standing.incomplete

    @property
    def epoch(self) -> str | None:
        """The identity that discovery gave."""
        return self.standing.epoch

    @property
    def last_alive(self) -> float | None:
        """Time of the last sign of life, None before the first."""
        return self.standing.last_alive

    @property
    def counters(self) -> Counters:
        """What happened since the publisher was added."""
        return self.standing.counters

    @property
    def link(self) -> int:
        """The number that frames and connection changes must carry."""
        return self.connection.link

    @property
    def position(self) -> Position:
        """Where the stream stands."""
        return self.stream.position

    @property
    def next_seq(self) -> int:
        """The sequence number expected next."""
        return self.stream.position.next_seq

    def status(self, now: float) -> PublisherStatus:
        """Describe the publisher at this moment."""
        standing, stream = self.standing, self.stream
        last = stream.position.last_seq
        standing.counters.buffer_dropped = stream.buffer.dropped
        return PublisherStatus(
            state=standing.state,
            reason=standing.reason,
            epoch=standing.epoch,
            incarnation=standing.incarnation,
            last_seq=last,
            lag=max(0, stream.highest - (-1 if last is None else last)),
            age_s=None if standing.last_alive is None else max(0.0, now - standing.last_alive),
            incomplete=standing.incomplete,
            buffered=len(stream.buffer),
            counters=standing.counters,
        )

    # -- connection ---------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """Request the first connection."""
        self.connection.renew()
        self.standing.waiting_since = self.standing.since = now
        self._outbox.emit(Connect(self.link))
        return self._outbox.take()

    def resume(self, next_seq: int, base_seq: int | None, tail: list[tuple[int, int]], *, incomplete: bool) -> None:
        """Before `start`: the core holds this publisher's blocks from a snapshot taken at `next_seq`.

        Trust comes with the first replay that shows one of the `tail` digests again.
        """
        self.stream.position.restore(next_seq, base_seq, tail)
        self.stream.highest = next_seq - 1
        self.standing.incomplete = incomplete
        self.standing.reason = "resumed from a snapshot, not connected yet"

    def connected(self, link: int, now: float) -> list[Action]:
        """The handshake with the publisher is done."""
        if link != self.link or self.state in _DEAF:
            return []
        self.standing.hear(now)
        if not self.connection.up:
            self.live.begin(now)
        elif self.state is State.LIVE:
            self.verification.peer_joined(now)
        return self._outbox.take()

    def disconnected(self, link: int, now: float) -> list[Action]:
        """The connection ended. What was missed since is unknown, so nothing is trusted until it is proved."""
        if link != self.link or self.state in _DEAF or not self.connection.up:
            return []
        self.counters.disconnects += 1
        self.recovery.cancel()
        self.stream.buffer.clear()
        self.recovery.grace_until = None
        self.connection.lost(now, now - self.verification.live_at)
        self._outbox.emit(Disconnect())
        if self.state is not State.STALE:
            self.standing.go(State.CONNECTING, "connection lost", now)
        return self._outbox.take()

    def alive(self, at: float, now: float) -> list[Action]:
        """A sign of life other than data: the peer is known to have been there at time `at`."""
        if self.state in _DEAF:
            return []
        self.standing.hear(at)
        if self.state is State.STALE and self.connection.up and now - at <= self.settings.stale_after_s:
            self.live.wake(now)
        return self._outbox.take()

    # -- live batches -------------------------------------------------------------------------------------------

    def frame(self, link: int, seq: int, payload: bytes, now: float) -> list[Action]:
        """One live batch."""
        if link != self.link or self.state in _DEAF:
            self.counters.fenced += 1
            return []
        self.live.take(seq, payload, now)
        return self._outbox.take()

    @property
    def run_from(self) -> int | None:
        """Where a run may begin that `frames` takes in one go; None while every batch must be looked at."""
        position = self.stream.position
        if self.standing.state is not State.LIVE or not position.known or self.verification.doubtful:
            return None
        return position.next_seq

    def frames(self, link: int, first: int, payloads: list[bytes], now: float) -> list[Action]:
        """Live batches with consecutive numbers: the same as `frame` for each, and quicker where they follow on."""
        if link != self.connection.link or first != self.run_from:
            return [
                action for seq, payload in enumerate(payloads, first) for action in self.frame(link, seq, payload, now)
            ]
        standing, stream = self.standing, self.stream
        standing.counters.frames += len(payloads)
        standing.counters.applied += len(payloads)
        standing.hear(now)
        self.verification.frame_at = now
        stream.position.accept_run(first, payloads)
        stream.highest = max(stream.highest, stream.position.next_seq - 1)
        return [Apply(first, tuple(payloads))]

    def bad_frame(self, link: int, reason: str, now: float) -> list[Action]:
        """Something that is not a batch arrived on the event socket."""
        if link != self.link or self.state in _DEAF:
            self.counters.fenced += 1
            return []
        self.standing.hear(now)
        self.counters.decode_errors += 1
        self.recovery.quarantine(reason, now)
        return self._outbox.take()

    def apply_failed(self, seq: int, reason: str, now: float, *, for_good: bool = False) -> list[Action]:
        """The payload of `seq` was refused; later payloads of the same answer were dropped.

        `for_good`: the publisher itself is refused, and no replay is asked whether the batch is better there.
        """
        if self.state in _DEAF:
            return []
        if for_good:
            self.position.rewind(seq)
            self.recovery.quarantine(reason, now, longest=True)
            return self._outbox.take()
        self.counters.decode_errors += 1
        if not self.replays.required or not self.quarantine.may_skip():
            self.position.rewind(seq)
            self.recovery.quarantine(f"batch {seq}: {reason}", now)
            return self._outbox.take()
        self.position.rewind(seq + 1)
        self.recovery.cancel()
        self.recovery.give_up_until(seq + 1, f"batch {seq} cannot be decoded, live or replayed: {reason}", now)
        self.recovery.request(Purpose.CATCH_UP, now)
        return self._outbox.take()

    # -- replay answers -----------------------------------------------------------------------------------------

    def replay_item(self, attempt: int, seq: int, payload: bytes, now: float) -> list[Action]:
        """One replayed batch. Answers to an abandoned attempt are ignored, here and below."""
        self.catch_up.item(attempt, seq, payload, now)
        return self._outbox.take()

    def replay_end(self, attempt: int, now: float) -> list[Action]:
        """The end marker."""
        self.catch_up.end(attempt, now)
        return self._outbox.take()

    def replay_failed(self, attempt: int, reason: str, now: float) -> list[Action]:
        """The replay socket failed, or an answer could not be parsed."""
        if self.replays.answered(attempt) is not None:
            self.catch_up.failed(reason, now)
        return self._outbox.take()

    # -- identity -----------------------------------------------------------------------------------------------

    def epoch_changed(self, epoch: str, now: float) -> list[Action]:
        """Discovery says which process this is. Another one than before fences everything of the old one."""
        before, self.standing.epoch = self.standing.epoch, epoch
        if self.state is State.REMOVED or before is None or before == epoch:
            return []
        self.counters.epochs += 1
        self.recovery.cancel()
        self.recovery.clear(f"epoch {before} ended")
        self.recovery.forget()
        self.standing.incomplete = True
        self.connection.renew()
        self.quarantine.lift()
        self._outbox.emit(Connect(self.link))
        self.standing.go(State.CONNECTING, f"new epoch {epoch}", now)
        return self._outbox.take()

    def removed(self, now: float) -> list[Action]:
        """The publisher left. Every later input is ignored."""
        if self.state is State.REMOVED:
            return []
        self.recovery.cancel()
        self.connection.renew()
        self.stream.buffer.clear()
        self._outbox.emit(Disconnect())
        self._outbox.emit(Remove())
        self.standing.go(State.REMOVED, "removed", now)
        return self._outbox.take()

    def complete(self) -> None:
        """The blocks known here are all there are: an audit found no difference, or the cache has turned over."""
        self.standing.incomplete = False
        self.repair.done()

    def not_complete(self) -> None:
        """The engine has shown that it holds blocks that are not known here."""
        self.standing.incomplete = True
        self.standing.log("info", "completeness_withdrawn")

    def blocks_suspect(self, events: int, now: float) -> list[Action]:
        """Applied batches had events of unknown types, each of which may have removed any block known so far."""
        if self.state in _DEAF:
            return []
        reason = f"{events} events of an unknown type may have removed blocks: dropped those before batch"
        self.recovery.suspect(f"{reason} {self.next_seq}", now)
        return self._outbox.take()

    def blocks_outdated(self, reason: str, now: float) -> list[Action]:
        """The blocks were built from the events by a wrong rule: drop them, and ask for the history again."""
        if self.state in _DEAF:
            return []
        self.recovery.suspect(reason, now)
        self.position.base_seq = None  # so that a repair sees how much further back the history reaches
        if self.settings.replay and self.state is State.LIVE:
            self.recovery.cancel()
            self.recovery.request(Purpose.REPAIR, now)
        return self._outbox.take()

    @property
    def unable_to_resync(self) -> bool:
        """The publisher is not listened to, and everything is applied again when that changes."""
        return self.state in _DEAF

    def blocks_dropped(self) -> None:
        """The core dropped the blocks without being told to: what is applied from here on is not all there is."""
        self.standing.incomplete = True
        self.position.base_seq = None  # so that a later repair sees how much further back the history reaches

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Let time pass. Call at least every 100 ms."""
        if self.state is State.REMOVED:
            return []
        if self.quarantine.active:
            if self.quarantine.over(now):
                self.standing.go(State.RESYNCING, "quarantine over, connecting again", now)
                self._outbox.emit(Connect(self.link))
            return self._outbox.take()
        if self.connection.retry_due(now):
            self._outbox.emit(Connect(self.link))
        self.catch_up.check_progress(now)
        if self.recovery.grace_until is not None and now >= self.recovery.grace_until:
            self.recovery.grace_until = None
            self.recovery.without_replay(f"batch {self.position.next_seq} is missing", now)
        self._check_stale(now)
        if self.state is State.LIVE or (self.state is State.GAP and self.verification.deaf):
            self._tick_live(now)
        return self._outbox.take()

    def _check_stale(self, now: float) -> None:
        standing = self.standing
        heard = standing.since if standing.last_alive is None else standing.last_alive
        if standing.state is not State.LIVE:
            heard = max(heard, standing.since)
        if standing.state is not State.STALE and now - heard > self.settings.stale_after_s:
            self.recovery.fall_silent(now)

    def _tick_live(self, now: float) -> None:
        self.quarantine.credit(now - self.verification.live_at)
        if self.replays.session is not None or not self.settings.replay or not self.connection.up:
            return
        if self.verification.due(now) and (missed := self.verification.give_up_waiting()):
            self.recovery.missed_live(missed, now)
        if self.state is State.GAP and self.verification.quiet(now):
            self.verification.settle()
            self.recovery.to_live(now, "in sync as far as the last check shows; live batches have not arrived")
        if self.state is State.LIVE and self.incomplete and self.repair.due(now):
            self.recovery.request(Purpose.REPAIR, now)
        elif self.verification.due(now):
            self.recovery.request(Purpose.VERIFY, now)
