"""The part of the machine that follows a replay: proving continuity, filling, giving up, going live."""

from kvsync_indexer.sync._base import MachineBase
from kvsync_indexer.sync.actions import Action, Disconnect
from kvsync_indexer.sync.position import Verdict
from kvsync_indexer.sync.session import Purpose, Session
from kvsync_indexer.sync.states import State

WAITING = frozenset({State.REPLAYING, State.GAP, State.RESTART, State.RESYNCING})
"""Connected and not trusted: live frames are buffered."""


class Replaying(MachineBase):
    """Inputs that come from the replay server, and what becomes of them."""

    def replay_item(self, attempt: int, seq: int, payload: bytes, now: float) -> list[Action]:
        """One replayed batch. Answers to an abandoned attempt are ignored."""
        session = self.session
        if session is None or session.attempt != attempt:
            self.counters.fenced += 1
            return []
        self._hear(now)
        self.counters.replay_items += 1
        session.items += 1
        self._short_is_lie = False
        session.deadline = now + self.settings.replay_timeout_s
        if self._accept_item(session, seq, payload, now):
            session.last_item = max(session.last_item, seq)
        return self._done()

    def replay_end(self, attempt: int, now: float) -> list[Action]:
        """The end marker."""
        session = self.session
        if session is None or session.attempt != attempt:
            self.counters.fenced += 1
            return []
        self._hear(now)
        heard = self.buffer.last()
        contradicted = heard is not None and heard >= session.start
        if contradicted and (session.items == 0 or session.absent):
            self.counters.replay_lies += 1
            self._short_is_lie = True
            self._replay_failed(f"replay from {session.start} ends at once although batch {heard} exists", now)
        elif session.absent and (session.proven or self._short_is_lie):
            # The same process, as its bytes show, or a server known to say less than there is.
            self._replay_failed(f"replay ends before batch {session.expect}", now)
        elif session.absent:
            self._restart(f"its history no longer has batch {session.expect}", now)
        else:
            self._finish(session, now)
        return self._done()

    def replay_failed(self, attempt: int, reason: str, now: float) -> list[Action]:
        """The replay socket failed, or an answer could not be parsed."""
        if self.session is not None and self.session.attempt == attempt:
            self._replay_failed(reason, now)
        return self._done()

    # -- items --------------------------------------------------------------------------------------------------

    def _accept_item(self, session: Session, seq: int, payload: bytes, now: float) -> bool:
        """Use one item; False when the session ended over it."""
        if session.purpose is Purpose.REPAIR and not self._begin_repair(session, seq, now):
            return False
        verdict = self.position.judge(seq, payload)
        if verdict is Verdict.OTHER or self.buffer.get(seq) not in (None, payload):
            self._restart(f"replay shows other bytes for batch {seq}", now)
            return False
        if seq <= session.last_item and verdict is not Verdict.DUPLICATE:
            self.counters.replay_lies += 1
            self._replay_failed(f"replay sent batch {seq} after batch {session.last_item}", now)
            return False
        if self.state in (State.GAP, State.RESTART):
            self._go(State.RESYNCING, self.reason, now)
        if verdict is Verdict.DUPLICATE:
            session.proven, self._must_prove = True, False
        elif verdict is Verdict.AHEAD:
            return self._hole(session, seq, payload, now)
        elif verdict is Verdict.NEXT:
            if self._must_prove:
                self._give_up_until(seq, f"nothing proves that batch {seq} follows what is known", now)
            self._take(session, seq, payload)
        return True

    def _take(self, session: Session, seq: int, payload: bytes) -> None:
        if not self.position.known:
            self.incomplete = seq != 0
            if self.incomplete:
                self.counters.truncations += 1
                self._log("info", "history_truncated", oldest=seq)
        session.fresh += 1
        self._apply(seq, payload)

    def _hole(self, session: Session, seq: int, payload: bytes, now: float) -> bool:
        """The replay skips numbers: lost on the way (ask again), out of reach, or never sent."""
        if not self._drain(now):
            return False
        if seq < self.position.next_seq:
            return True
        if seq > self.position.next_seq:
            wanted = self.position.next_seq
            if session.fresh and self._hole_at != wanted:
                self._hole_at = wanted
                self._replay_failed(f"replay skipped from {wanted} to {seq}", now)
                return False
            if not session.required:
                self._open_gap(seq, payload, now)  # what is missing may be on its way as live frames
                return False
            self._give_up_until(seq, f"batches {wanted} to {seq - 1} cannot be replayed", now)
        self._take(session, seq, payload)
        return True

    def _open_gap(self, seq: int, payload: bytes, now: float) -> None:
        wanted = self.position.next_seq
        self.counters.gaps += 1
        self.counters.missed += seq - wanted
        self._cancel()
        self.buffer.add(seq, payload)
        self._go(State.GAP, f"batches {wanted} to {seq - 1} are missing", now)
        if self.settings.replay:
            self._request(Purpose.CATCH_UP, now)
        else:
            self._grace_until = now + self.settings.gap_grace_s

    def _begin_repair(self, session: Session, seq: int, now: float) -> bool:
        """First answer to a repair: worth rebuilding only if it reaches further back than what is here."""
        base = self.position.base_seq
        if base is not None and seq >= base:
            self._repair_at = None
            self._repairs_left = 0
            self._cancel()
            self._request(Purpose.VERIFY, now)
            return False
        self._repair_at = None
        self._clear("history is available again")
        self.position.rebuild()
        session.purpose = Purpose.SYNC
        self.counters.resyncs += 1
        self._go(State.RESYNCING, "rebuilding from the history that is available again", now)
        return True

    def _give_up_until(self, seq: int, reason: str, now: float) -> None:
        """What lies before `seq` is lost: keep nothing that a lost removal could have made wrong."""
        self.counters.truncations += 1
        self.counters.resyncs += 1
        self._clear(reason)
        self.position.skip_to(seq)
        self._must_prove = False
        self.incomplete = True
        self._go(State.RESYNCING, reason, now)

    # -- ends ---------------------------------------------------------------------------------------------------

    def _finish(self, session: Session, now: float) -> None:
        """The server has said all it has: put the buffered frames behind it, or ask for what is between."""
        if not self.position.known:
            self.position.known = True
            self.incomplete = False
        if session.purpose in (Purpose.VERIFY, Purpose.REPAIR):
            self.session = None
            self._last_verify = now
            self._link_verified = True
            if session.purpose is Purpose.REPAIR:
                self._repair_at = None
            return
        if not self._drain(now):
            return
        if self._known_missing() and self._round_next != self.position.next_seq:
            self._round_next = self.position.next_seq
            self._request(Purpose.CATCH_UP, now)
            return
        while (head := self._known_missing()) is not None:
            self._give_up_until(head, f"batches {self.position.next_seq} to {head - 1} cannot be replayed", now)
            self._drain(now)
        self._to_live(now)

    def _known_missing(self) -> int | None:
        """Where the stream goes on after batches that exist and cannot be had; None when there are none."""
        head = self.buffer.first()
        if head is None and self.highest >= self.position.next_seq:
            return self.highest + 1
        return head

    def _drain(self, now: float) -> bool:
        """Apply buffered frames that follow on; drop those that are applied already. False: it was another process."""
        for seq in self.buffer:
            payload = self.buffer.get(seq)
            assert payload is not None
            verdict = self.position.judge(seq, payload)
            if verdict is Verdict.OTHER:
                self._restart(f"live batch {seq} has other bytes than the replay", now)
                return False
            if verdict is Verdict.AHEAD:
                return True
            self.buffer.pop(seq)
            if verdict is Verdict.NEXT:
                self._apply(seq, payload)
            else:
                self.counters.duplicates += 1
        return True

    def _to_live(self, now: float, reason: str = "in sync") -> None:
        self.session = None
        self._round_next = self._hole_at = -1
        self._grace_until = None
        self._poison = 0
        self._live_at = self._last_verify = now
        if self.settings.replay and self.incomplete and self._repairs_left and self._repair_at is None:
            self._repairs_left -= 1
            self._repair_at = now + self._repair_s
        self._go(State.LIVE, reason, now)

    def _replay_failed(self, reason: str, now: float) -> None:
        session = self.session
        if session is None:
            return
        self._cancel()
        self.counters.replay_failures += 1
        self._log("warning", "replay_failed", reason=reason, start=session.start, purpose=session.purpose.name.lower())
        if session.purpose is Purpose.VERIFY:
            self._last_verify = now
            self._link_verified = True
            self.reason = f"in sync as far as heard; {reason}"
            return
        if session.purpose is Purpose.REPAIR:
            self._repair_s = min(2 * self._repair_s, self.settings.repair_max_s)
            self._repair_at = now + self._repair_s
            return
        failures = 0 if session.fresh else session.failures + 1
        slow = now - self._waiting_since > self.settings.replay_total_s
        if failures >= self.settings.replay_attempts or slow:
            self._without_replay(reason, now)
        else:
            self._request(session.purpose, now, failures)

    def _without_replay(self, reason: str, now: float) -> None:
        """No history to be had: start over from what comes in live, and say so."""
        self._clear(f"no replay: {reason}")
        self.position.base_seq = None  # so that a later repair sees how much further back it reaches
        self._must_prove = False
        self.counters.resyncs += 1
        self.incomplete = True
        if not self._drain(now):
            return
        if len(self.buffer) == 0 and self.position.next_seq == self._link_next:
            self.position.reset()  # nothing heard on this connection yet: whatever comes is the start
        while (head := self._known_missing()) is not None:
            self._clear("batches that live events showed to be missing")
            self.position.skip_to(head)
            self._drain(now)
        if self.settings.replay:
            self._repair_at = now + self._repair_s
        self._to_live(now, f"rebuilding from live events only; {reason}")

    # -- a new process behind the same stream -------------------------------------------------------------------

    def _restart(self, reason: str, now: float, frame: tuple[int, bytes] | None = None) -> None:
        self.counters.restarts += 1
        self._cancel()
        self._clear(reason)
        self._forget()
        self.incomplete = True
        full = len(self._flaps) == self.settings.flap_limit
        if full and now - self._flaps[0] < self.settings.flap_window_s:
            self._flaps.clear()
            self._quarantine(f"restarts over and over (two publishers on one endpoint?): {reason}", now)
            return
        self._flaps.append(now)
        self._go(State.RESTART, reason, now)
        if self.settings.replay:
            if frame is not None:
                self.buffer.add(*frame)
                self.highest = frame[0]
            self._request(Purpose.SYNC, now)
            return
        if frame is not None:
            self.incomplete = frame[0] != 0
            self._apply(*frame)
        self._to_live(now, f"restarted: {reason}; no replay")

    def _quarantine(self, reason: str, now: float) -> None:
        self.counters.quarantines += 1
        self._cancel()
        self.buffer.clear()
        self._grace_until = self._reconnect_at = None
        self.link += 1
        self._linked = False
        self._poison = 0
        self._quarantine_until = now + self._quarantine_s
        self._emit(Disconnect())
        self._go(State.QUARANTINED, f"{reason} (for {self._quarantine_s:g} s)", now)
        self._quarantine_s = min(2 * self._quarantine_s, self.settings.quarantine_max_s)
