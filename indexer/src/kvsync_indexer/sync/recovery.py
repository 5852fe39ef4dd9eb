"""The steps by which a publisher loses trust and regains it, whichever input makes them necessary."""

from kvsync_indexer.sync.actions import CancelReplay, Clear, Disconnect, RequestReplay
from kvsync_indexer.sync.parts import Parts
from kvsync_indexer.sync.session import Purpose
from kvsync_indexer.sync.states import State

_DEAF = "live batches do not arrive, only a replay brings them (another topic, or messages are dropped?)"


class Recovery:
    """Requests history, gives up what cannot be had, goes live, starts over. `now` is monotonic seconds."""

    def __init__(self, parts: Parts) -> None:
        self._settings = parts.settings
        self._outbox = parts.outbox
        self._standing = parts.standing
        self._stream = parts.stream
        self._connection = parts.connection
        self._replays = parts.replays
        self._verification = parts.verification
        self._repair = parts.repair
        self._quarantine = parts.quarantine
        self.grace_until: float | None = None
        """Without a replay endpoint: until when a missing batch may still arrive out of order."""

    # -- replays ------------------------------------------------------------------------------------------------

    def request(self, purpose: Purpose, now: float, failures: int = 0) -> None:
        """Request a replay; `failures` attempts in a row have brought nothing new."""
        position = self._stream.position
        session = self._replays.begin(purpose, position.next_seq if position.known else None, now, failures)
        self._standing.counters.replays += 1
        self._outbox.emit(RequestReplay(session.attempt, session.start))

    def cancel(self) -> None:
        """Abandon the replay in progress, if any."""
        if self._replays.session is not None:
            self._replays.session = None
            self._outbox.emit(CancelReplay())

    def open_gap(self, seq: int, payload: bytes, now: float) -> None:
        """Batches before `seq` are missing: keep this one and look for the others."""
        stream, counters = self._stream, self._standing.counters
        wanted = stream.position.next_seq
        counters.gaps += 1
        counters.missed += seq - wanted
        self.cancel()
        stream.buffer.add(seq, payload)
        self._standing.go(State.GAP, f"batches {wanted} to {seq - 1} are missing", now)
        if self._settings.replay:
            self.request(Purpose.CATCH_UP, now)
        else:
            self.grace_until = now + self._settings.gap_grace_s

    # -- batches that only checks bring -------------------------------------------------------------------------

    def missed_live(self, batches: int, now: float) -> None:
        """Batches that a check found have not arrived live: count them, and distrust a publisher that is deaf."""
        standing = self._standing
        if batches:
            standing.counters.gaps += 1
            standing.counters.missed += batches
            standing.log("warning", "live_batches_missed", batches=batches, deaf=self._verification.deaf)
        if self._verification.deaf:
            standing.go(State.GAP, _DEAF, now)
        elif batches:
            standing.reason = f"in sync as far as the last check shows: {batches} batches did not arrive live"

    def hear_again(self, seq: int, now: float) -> None:
        """A live batch of a publisher in doubt arrived."""
        deaf = self._verification.deaf
        missed = self._verification.heard(seq)
        if missed:
            self._standing.counters.gaps += 1
            self._standing.counters.missed += missed
        if self._verification.doubtful:
            return
        if deaf and self._standing.state is State.GAP:
            self.cancel()
            self.request(Purpose.CATCH_UP, now)
        elif self._standing.state is State.LIVE:
            self._standing.reason = "in sync"

    # -- in sync ------------------------------------------------------------------------------------------------

    def drain(self, now: float) -> bool:
        """Apply the waiting batches that follow on; False if one of them showed that another process sends now."""
        other = self._stream.drain()
        if other is not None:
            self.restart(f"live batch {other} has other bytes than the replay", now)
        return other is None

    def to_live(self, now: float, reason: str = "in sync") -> None:
        """Trust the publisher, unless it is deaf: then it is only as well known as a check shows."""
        self._replays.settled()
        self.grace_until = None
        self._quarantine.synced()
        self._verification.live(now)
        if self._settings.replay and self._standing.incomplete:
            self._repair.plan_after_sync(now)
        if self._verification.deaf:
            self._standing.go(State.GAP, _DEAF, now)
        else:
            self._standing.go(State.LIVE, reason, now)

    # -- giving up ----------------------------------------------------------------------------------------------

    def clear(self, reason: str) -> None:
        """Drop every block. Requested even if nothing was applied: only the core knows whether it holds any."""
        self._standing.counters.clears += 1
        self._outbox.emit(Clear(reason))

    def give_up_until(self, seq: int, reason: str, now: float) -> None:
        """The batches before `seq` are lost: keep no block that one of them may have removed."""
        counters = self._standing.counters
        counters.truncations += 1
        counters.resyncs += 1
        self.clear(reason)
        self._stream.position.skip_to(seq)
        self._replays.must_prove = False
        self._standing.incomplete = True
        self._standing.go(State.RESYNCING, reason, now)

    def suspect(self, reason: str, now: float) -> None:
        """Any block known so far may have gone: keep none. What is stored from here on can be trusted again."""
        self.clear(reason)
        self._standing.counters.resyncs += 1
        self._standing.incomplete = True
        if self._standing.state is State.LIVE:
            self._standing.go(State.RESYNCING, reason, now)
            self._standing.go(State.LIVE, reason, now)

    def without_replay(self, reason: str, now: float) -> None:
        """No history is to be had: start over from live batches, and say that the publisher is incomplete."""
        stream = self._stream
        self.clear(f"no replay: {reason}")
        stream.position.base_seq = None  # so that a later repair sees how much further back it reaches
        self._replays.must_prove = False
        self._standing.counters.resyncs += 1
        self._standing.incomplete = True
        if not self.drain(now):
            return
        if len(stream.buffer) == 0 and stream.position.next_seq == self._connection.first_seq:
            stream.position.reset()  # nothing was heard on this connection: whatever comes is the start
        while (head := stream.resumes_at()) is not None:
            self.clear("batches that live events showed to be missing")
            stream.position.skip_to(head)
            self.drain(now)
        if self._settings.replay:
            self._repair.plan_after_outage(now)
        self.to_live(now, f"rebuilding from live events only; {reason}")

    def fall_silent(self, now: float) -> None:
        """Nothing was heard for too long."""
        self._standing.counters.stales += 1
        self.cancel()
        self._stream.buffer.clear()
        self.grace_until = None
        self._standing.go(State.STALE, f"no sign of life for {self._settings.stale_after_s:g} s", now)

    # -- starting over ------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """Begin a new incarnation."""
        self._standing.incarnation += 1
        self._stream.forget()
        self._replays.forget()
        self._repair.forget()
        self._verification.forget()
        self._connection.first_seq = 0
        self.grace_until = None

    def restart(self, reason: str, now: float, frame: tuple[int, bytes] | None = None) -> None:
        """Another process is behind the stream; `frame` is its live batch that showed it, if one did."""
        standing, stream = self._standing, self._stream
        standing.counters.restarts += 1
        self.cancel()
        self.clear(reason)
        self.forget()
        standing.incomplete = True
        if self._quarantine.flaps(now):
            self.quarantine(f"restarts over and over (two publishers on one endpoint?): {reason}", now)
            return
        standing.go(State.RESTART, reason, now)
        if self._settings.replay:
            if frame is not None:
                stream.buffer.add(*frame)
                stream.highest = frame[0]
            self.request(Purpose.SYNC, now)
            return
        if frame is not None:
            standing.incomplete = frame[0] != 0
            stream.apply(*frame)
        self.to_live(now, f"restarted: {reason}; no replay")

    def quarantine(self, reason: str, now: float, *, longest: bool = False) -> None:
        """Close the publisher's sockets for a while, or for the longest time that there is."""
        self._standing.counters.quarantines += 1
        self.cancel()
        self._stream.buffer.clear()
        self.grace_until = None
        self._connection.renew()
        length_s = self._quarantine.impose(now, longest=longest)
        self._outbox.emit(Disconnect())
        self._standing.go(State.QUARANTINED, f"{reason} (for {length_s:g} s)", now)
