"""The publisher state machine: one publisher's inputs in, typed actions out; no socket, no clock.

    connecting -> replaying -> live -> (gap | restart | stale | quarantined) -> resyncing -> live

A *link* is the life of one TCP connection: when it ends the machine asks for a fresh socket under a new number, so
nothing that an earlier process sent can arrive after something a later one sent. `docs/design/sync-protocol.md` has
the diagram and the reasons.
"""

from kvsync_indexer.sync._replaying import WAITING, Replaying
from kvsync_indexer.sync.actions import Action, Apply, Connect, Disconnect, Remove
from kvsync_indexer.sync.position import Verdict
from kvsync_indexer.sync.session import Purpose
from kvsync_indexer.sync.states import State

_DEAF = frozenset({State.QUARANTINED, State.REMOVED})


class PublisherMachine(Replaying):
    """Follows one publisher. Each input returns the actions to carry out, in order."""

    def start(self, now: float) -> list[Action]:
        """Ask for the first connection."""
        self.link += 1
        self._waiting_since = self.since = now
        self._emit(Connect(self.link))
        return self._done()

    def resume(self, next_seq: int, base_seq: int | None, tail: list[tuple[int, int]], *, incomplete: bool) -> None:
        """Before `start`: the core holds this publisher's blocks from a snapshot taken at `next_seq`.

        Trust comes with the first replay that shows one of the `tail` digests again.
        """
        self.position.restore(next_seq, base_seq, tail)
        self.incomplete = incomplete
        self.highest = next_seq - 1
        self.reason = "resumed from a snapshot, not connected yet"

    # -- connection ---------------------------------------------------------------------------------------------

    def connected(self, link: int, now: float) -> list[Action]:
        """The handshake with the publisher is done."""
        if link != self.link or self.state in _DEAF:
            return []
        self._hear(now)
        if not self._linked:
            self._begin(now)
        elif self.state is State.LIVE:
            self._link_verified = False  # a second peer on a bound endpoint: look whether it is another process
            self._live_at = now
        return self._done()

    def disconnected(self, link: int, now: float) -> list[Action]:
        """The connection ended. What was missed since is unknown, so nothing is trusted until it is proved."""
        if link != self.link or self.state in _DEAF or not self._linked:
            return []
        self.counters.disconnects += 1
        self._cancel()
        self.buffer.clear()
        self._grace_until = None
        self.link += 1
        self._linked = False
        if now - self._live_at > self.settings.reconnect_max_s:
            self._reconnect_s = self.settings.reconnect_s
        self._reconnect_at = now + self._reconnect_s
        self._reconnect_s = min(2 * self._reconnect_s, self.settings.reconnect_max_s)
        self._emit(Disconnect())
        if self.state is not State.STALE:
            self._go(State.CONNECTING, "connection lost", now)
        return self._done()

    def alive(self, at: float, now: float) -> list[Action]:
        """A sign of life other than data: the peer is known to have been there at time `at`."""
        if self.state in _DEAF:
            return []
        self._hear(at)
        if self.state is State.STALE and self._linked and now - at <= self.settings.stale_after_s:
            self._wake(now)
        return self._done()

    # -- frames -------------------------------------------------------------------------------------------------

    def frame(self, link: int, seq: int, payload: bytes, now: float) -> list[Action]:
        """One live batch."""
        if link != self.link or self.state in _DEAF:
            self.counters.fenced += 1
            return []
        self.counters.frames += 1
        self._hear(now)
        self._last_frame = now
        if not self._linked:
            self._begin(now)
        elif self.state is State.STALE:
            self._wake(now)
        self.highest = max(self.highest, seq)
        self._route(seq, payload, now)
        return self._done()

    @property
    def run_from(self) -> int | None:
        """Where a run of live batches may begin that `frames` takes in one go; None when each must be looked at."""
        return self.position.next_seq if self.state is State.LIVE and self.position.known else None

    def frames(self, link: int, first: int, payloads: list[bytes], now: float) -> list[Action]:
        """Live batches with consecutive numbers; the same as `frame` for each, quicker where they follow on."""
        if link != self.link or first != self.run_from:
            return [
                action for seq, payload in enumerate(payloads, first) for action in self.frame(link, seq, payload, now)
            ]
        self.counters.frames += len(payloads)
        self.counters.applied += len(payloads)
        self._hear(now)
        self._last_frame = now
        self.position.accept_run(first, payloads)
        self.highest = max(self.highest, self.position.next_seq - 1)
        return [Apply(first, tuple(payloads))]

    def bad_frame(self, link: int, reason: str, now: float) -> list[Action]:
        """Something that is not a batch arrived on the event socket."""
        if link != self.link or self.state in _DEAF:
            self.counters.fenced += 1
            return []
        self._hear(now)
        self.counters.decode_errors += 1
        self._quarantine(reason, now)
        return self._done()

    def apply_failed(self, seq: int, reason: str, now: float) -> list[Action]:
        """The core refused the payload of `seq`; later payloads of the same list were dropped."""
        if self.state in _DEAF:
            return []
        self.counters.decode_errors += 1
        waiting = self.session is not None and self.session.required
        if not waiting or self._poison >= self.settings.poison_limit:
            self.position.rewind(seq)
            self._quarantine(f"batch {seq}: {reason}", now)
            return self._done()
        self._poison += 1
        self.position.rewind(seq + 1)
        self._cancel()
        self._give_up_until(seq + 1, f"batch {seq} cannot be decoded, live or replayed: {reason}", now)
        self._request(Purpose.CATCH_UP, now)
        return self._done()

    # -- identity -----------------------------------------------------------------------------------------------

    def epoch_changed(self, epoch: str, now: float) -> list[Action]:
        """Discovery says which process this is. Another one than before fences everything of the old."""
        before, self.epoch = self.epoch, epoch
        if self.state is State.REMOVED or before is None or before == epoch:
            return []
        self.counters.epochs += 1
        self._cancel()
        self._clear(f"epoch {before} ended")
        self._forget()
        self.incomplete = True
        self.link += 1
        self._linked = False
        self._reconnect_at = self._quarantine_until = None
        self._quarantine_s = self.settings.quarantine_s
        self._emit(Connect(self.link))
        self._go(State.CONNECTING, f"new epoch {epoch}", now)
        return self._done()

    def removed(self, now: float) -> list[Action]:
        """The publisher left. Every later input is ignored."""
        if self.state is State.REMOVED:
            return []
        self._cancel()
        self.link += 1
        self.buffer.clear()
        self._emit(Disconnect())
        self._emit(Remove())
        self._go(State.REMOVED, "removed", now)
        return self._done()

    # -- completeness -------------------------------------------------------------------------------------------

    def turned_over(self, removed: int, cleared: int, resident: int) -> None:
        """Tell how an incomplete publisher's cache moved on since the last call.

        Complete again after a clear, or once as many blocks were evicted as are resident: eviction is least recently
        used first, so what was unknown has gone by then unless it is hit again and again.
        """
        if not self.incomplete:
            return
        self._turned += removed
        if cleared or (resident and self._turned >= resident):
            self.complete()

    def complete(self) -> None:
        """The blocks known here are all there are (also: an audit found no difference)."""
        self.incomplete = False
        self._repair_at = None

    # -- time ---------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Action]:
        """Let time pass. Call at least every 100 ms."""
        if self.state is State.REMOVED:
            return []
        if self._quarantine_until is not None:
            if now >= self._quarantine_until:
                self._quarantine_until = None
                self._go(State.RESYNCING, "quarantine over, connecting again", now)
                self._emit(Connect(self.link))
            return self._done()
        if self._reconnect_at is not None and now >= self._reconnect_at:
            self._reconnect_at = None
            self._emit(Connect(self.link))
        if self.session is not None and now >= self.session.deadline:
            self._replay_failed(f"replay server silent for {self.settings.replay_timeout_s:g} s", now)
        elif self._trickles(now):
            self._replay_failed(f"replay not done after {self.settings.replay_total_s:g} s", now)
        if self._grace_until is not None and now >= self._grace_until:
            self._grace_until = None
            self._without_replay(f"batch {self.position.next_seq} is missing", now)
        self._check_stale(now)
        if self.state is State.LIVE:
            self._tick_live(now)
        return self._done()

    def _trickles(self, now: float) -> bool:
        waits = self.session is not None and self.session.required
        return waits and now - self._waiting_since > self.settings.replay_total_s

    def _check_stale(self, now: float) -> None:
        if self.state is State.STALE:
            return
        heard = self.since if self.last_alive is None else self.last_alive
        if self.state is not State.LIVE:
            heard = max(heard, self.since)
        if now - heard > self.settings.stale_after_s:
            self.counters.stales += 1
            self._cancel()
            self.buffer.clear()
            self._grace_until = None
            self._go(State.STALE, f"no sign of life for {self.settings.stale_after_s:g} s", now)

    def _tick_live(self, now: float) -> None:
        settings = self.settings
        if now - self._live_at > settings.quarantine_reset_s:
            self._quarantine_s = settings.quarantine_s
        if self.session is not None or not settings.replay or not self._linked:
            return
        if self.incomplete and self._repair_at is not None and now >= self._repair_at:
            self._request(Purpose.REPAIR, now)
        elif not self._link_verified:
            if now - self._live_at >= settings.verify_after_s:
                self._request(Purpose.VERIFY, now)
        elif now - max(self._last_frame, self._last_verify) >= settings.verify_idle_s:
            self._request(Purpose.VERIFY, now)

    # -- inside -------------------------------------------------------------------------------------------------

    def _begin(self, now: float) -> None:
        """A new link is up."""
        first = self.state is State.CONNECTING
        self._linked = True
        self._link_verified = self._short_is_lie = False
        self._link_next = self.position.next_seq
        self.highest = self.position.next_seq - 1  # what was heard of on an earlier connection may be another's
        self._must_prove = self.position.known and self.position.next_seq > 0
        self._waiting_since = now
        if self.settings.replay:
            self._go(State.REPLAYING if first else State.RESYNCING, "connected, asking for history", now)
            self._request(Purpose.CATCH_UP, now)
            return
        if self.position.known:
            self._clear("connected again without a replay endpoint: batches may have been missed")
            self.counters.resyncs += 1
            self._forget()
        self.incomplete = True
        self._to_live(now, "live events only (no replay endpoint)")

    def _wake(self, now: float) -> None:
        """Heard again on the same link after being stale."""
        if self.settings.replay:
            self._waiting_since = now
            self._go(State.RESYNCING, "heard again, asking for what was missed", now)
            self._request(Purpose.CATCH_UP, now)
        else:
            self._to_live(now, "heard again")

    def _route(self, seq: int, payload: bytes, now: float) -> None:
        verdict = self.position.judge(seq, payload)
        if verdict is Verdict.DUPLICATE:
            self.counters.duplicates += 1
        elif verdict is Verdict.LATE:
            self.counters.late += 1
        elif verdict in (Verdict.UNKNOWN, Verdict.OTHER):
            self._restart(f"sequence went back from {self.position.next_seq - 1} to {seq}", now, (seq, payload))
        elif self.state in WAITING:
            self._wait(seq, payload, now)
        elif verdict is Verdict.NEXT:
            if not self.position.known:
                self.incomplete = seq != 0
            self._apply(seq, payload)
        else:
            self._open_gap(seq, payload, now)

    def _wait(self, seq: int, payload: bytes, now: float) -> None:
        self.buffer.add(seq, payload)
        out_of_order = self.session is None and self.position.known  # no replay: nothing else may be missing
        if out_of_order and self._drain(now) and not len(self.buffer):
            self._to_live(now)
