"""What becomes of live batches: they begin a link, wake a stale publisher, and are applied, kept waiting or doubted."""

from kvsync_indexer.sync.parts import Parts
from kvsync_indexer.sync.position import Continuity
from kvsync_indexer.sync.recovery import Recovery
from kvsync_indexer.sync.session import Purpose
from kvsync_indexer.sync.states import State

_WAITING = frozenset({State.REPLAYING, State.GAP, State.RESTART, State.RESYNCING})
"""Connected and not trusted: live batches wait for the replay."""


class LiveBatches:
    """Takes the batches of the present link. `now` is monotonic seconds."""

    def __init__(self, parts: Parts, recovery: Recovery) -> None:
        self._settings = parts.settings
        self._standing = parts.standing
        self._stream = parts.stream
        self._connection = parts.connection
        self._replays = parts.replays
        self._verification = parts.verification
        self._recovery = recovery

    def take(self, seq: int, payload: bytes, now: float) -> None:
        """Take one batch."""
        self._standing.counters.frames += 1
        self._standing.hear(now)
        self._verification.frame_at = now
        if self._verification.doubtful:
            self._recovery.hear_again(seq, now)
        if not self._connection.up:
            self.begin(now)
        elif self._standing.state is State.STALE:
            self.wake(now)
        self._stream.highest = max(self._stream.highest, seq)
        self._route(seq, payload, now)

    def begin(self, now: float) -> None:
        """A new link is up."""
        standing, position = self._standing, self._stream.position
        first = standing.state is State.CONNECTING
        self._connection.established(position.next_seq)
        self._verification.link_verified = False
        self._replays.link_up(position.next_seq if position.known else None)
        self._stream.highest = position.next_seq - 1  # what was heard of on an earlier link may be another process's
        standing.waiting_since = now
        if self._settings.replay:
            standing.go(State.REPLAYING if first else State.RESYNCING, "connected, asking for history", now)
            self._recovery.request(Purpose.CATCH_UP, now)
            return
        if position.known:
            self._recovery.clear("connected again without a replay endpoint: batches may have been missed")
            standing.counters.resyncs += 1
            self._recovery.forget()
        standing.incomplete = True
        self._recovery.to_live(now, "live events only (no replay endpoint)")

    def wake(self, now: float) -> None:
        """The publisher was heard again on the same link after being stale."""
        if self._settings.replay:
            self._standing.waiting_since = now
            self._standing.go(State.RESYNCING, "heard again, asking for what was missed", now)
            self._recovery.request(Purpose.CATCH_UP, now)
        else:
            self._recovery.to_live(now, "heard again")

    def _route(self, seq: int, payload: bytes, now: float) -> None:
        standing, stream = self._standing, self._stream
        continuity = stream.position.judge(seq, payload)
        if continuity is Continuity.DUPLICATE:
            standing.counters.duplicates += 1
        elif continuity is Continuity.LATE:
            standing.counters.late += 1
        elif continuity in (Continuity.UNKNOWN, Continuity.OTHER):
            reason = f"sequence went back from {stream.position.next_seq - 1} to {seq}"
            self._recovery.restart(reason, now, (seq, payload))
        elif standing.state in _WAITING:
            self._wait(seq, payload, now)
        elif continuity is Continuity.NEXT:
            if not stream.position.known:
                standing.incomplete = seq != 0
            stream.apply(seq, payload)
        else:
            self._recovery.open_gap(seq, payload, now)

    def _wait(self, seq: int, payload: bytes, now: float) -> None:
        buffer = self._stream.buffer
        buffer.add(seq, payload)
        # Without a replay in progress and with a known position, nothing but this batch was out of order.
        settled = self._replays.session is None and self._stream.position.known
        if settled and self._recovery.drain(now) and not len(buffer):
            self._recovery.to_live(now)
