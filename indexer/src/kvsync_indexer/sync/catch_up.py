"""What becomes of a replay server's answers: proving continuity, filling in, giving up, and the end of a replay."""

from kvsync_indexer.sync.parts import Parts
from kvsync_indexer.sync.position import Continuity
from kvsync_indexer.sync.recovery import Recovery
from kvsync_indexer.sync.session import Purpose, Session
from kvsync_indexer.sync.states import State


class CatchUp:
    """Follows the replay in progress. Answers to an abandoned attempt are counted and ignored."""

    def __init__(self, parts: Parts, recovery: Recovery) -> None:
        self._settings = parts.settings
        self._standing = parts.standing
        self._stream = parts.stream
        self._replays = parts.replays
        self._verification = parts.verification
        self._repair = parts.repair
        self._recovery = recovery

    # -- answers ------------------------------------------------------------------------------------------------

    def item(self, attempt: int, seq: int, payload: bytes, now: float) -> None:
        """Take one replayed batch."""
        session = self._replays.answered(attempt)
        if session is None:
            self._standing.counters.fenced += 1
            return
        self._standing.hear(now)
        self._standing.counters.replay_items += 1
        self._replays.extend(session, now)
        if self._accept(session, seq, payload, now):
            session.last_item = max(session.last_item, seq)

    def end(self, attempt: int, now: float) -> None:
        """Take the end marker."""
        session = self._replays.answered(attempt)
        if session is None:
            self._standing.counters.fenced += 1
            return
        self._standing.hear(now)
        heard = self._stream.buffer.last()
        contradicted = heard is not None and heard >= session.start
        if contradicted and (session.items == 0 or session.absent):
            self._standing.counters.replay_lies += 1
            self._replays.short_is_lie = True
            self.failed(f"replay from {session.start} ends at once although batch {heard} exists", now)
        elif session.absent and (session.proven or self._replays.short_is_lie):
            # Its bytes show that it is the same process, or its server is known to say less than there is.
            self.failed(f"replay ends before batch {session.expect}", now)
        elif session.absent:
            self._recovery.restart(f"its history no longer has batch {session.expect}", now)
        else:
            self._finish(session, now)

    def check_progress(self, now: float) -> None:
        """Give up an attempt that is silent, or that has kept the publisher distrusted for too long."""
        settings = self._settings
        if self._replays.overdue(now):
            self.failed(f"replay server silent for {settings.replay_timeout_s:g} s", now)
        elif self._replays.required and self._takes_too_long(now):
            self.failed(f"replay not done after {settings.replay_total_s:g} s", now)

    def failed(self, reason: str, now: float) -> None:
        """Abandon the attempt in progress; what follows depends on what waits for it."""
        session = self._replays.session
        if session is None:
            return
        standing = self._standing
        self._recovery.cancel()
        standing.counters.replay_failures += 1
        purpose = session.purpose.name.lower()
        standing.log("warning", "replay_failed", reason=reason, start=session.start, purpose=purpose)
        if session.purpose is Purpose.VERIFY:
            self._verification.done(now)
            if standing.state is State.LIVE:
                standing.reason = f"in sync as far as heard; {reason}"
            self._count_finds(session, now)
            return
        if session.purpose is Purpose.REPAIR:
            self._repair.failed(now)
            return
        failures = 0 if session.fresh else session.failures + 1
        if failures >= self._settings.replay_attempts or self._takes_too_long(now):
            self._recovery.without_replay(reason, now)
        else:
            self._recovery.request(session.purpose, now, failures)

    def _takes_too_long(self, now: float) -> bool:
        return now - self._standing.waiting_since > self._settings.replay_total_s

    # -- items --------------------------------------------------------------------------------------------------

    def _accept(self, session: Session, seq: int, payload: bytes, now: float) -> bool:
        """Use one item; False if the session ended over it."""
        if session.purpose is Purpose.REPAIR and not self._begin_repair(session, seq, now):
            return False
        standing, position = self._standing, self._stream.position
        continuity = position.judge(seq, payload)
        if continuity is Continuity.OTHER or self._stream.buffer.get(seq) not in (None, payload):
            self._recovery.restart(f"replay shows other bytes for batch {seq}", now)
            return False
        if seq <= session.last_item and continuity is not Continuity.DUPLICATE:
            standing.counters.replay_lies += 1
            self.failed(f"replay sent batch {seq} after batch {session.last_item}", now)
            return False
        if session.required and standing.state in (State.GAP, State.RESTART):
            standing.go(State.RESYNCING, standing.reason, now)
        if continuity is Continuity.DUPLICATE:
            session.proven, self._replays.must_prove = True, False
        elif continuity is Continuity.AHEAD:
            return self._hole(session, seq, payload, now)
        elif continuity is Continuity.NEXT:
            if self._replays.must_prove:
                self._recovery.give_up_until(seq, f"nothing proves that batch {seq} follows what is known", now)
            self._take(session, seq, payload)
        return True

    def _take(self, session: Session, seq: int, payload: bytes) -> None:
        standing = self._standing
        if not self._stream.position.known:
            standing.incomplete = seq != 0
            if standing.incomplete:
                standing.counters.truncations += 1
                standing.log("info", "history_truncated", oldest=seq)
        session.fresh += 1
        self._stream.apply(seq, payload)

    def _hole(self, session: Session, seq: int, payload: bytes, now: float) -> bool:
        """The replay skips numbers: they were lost on the way (ask again), are out of reach, or were never sent."""
        if self._replays.must_prove:
            # Were the waiting batches applied now, the replay would equal them, and a successor would prove itself.
            waiting = self._stream.buffer.first()
            head = seq if waiting is None else min(seq, waiting)
            self._recovery.give_up_until(head, f"nothing proves that batch {head} follows what is known", now)
        if not self._recovery.drain(now):
            return False
        wanted = self._stream.position.next_seq
        if seq < wanted:
            return True
        if seq > wanted:
            if session.fresh and self._replays.hole_at != wanted:
                self._replays.hole_at = wanted
                self.failed(f"replay skipped from {wanted} to {seq}", now)
                return False
            if not session.required:
                if session.purpose is Purpose.VERIFY:
                    self._verification.found(0, seq, now)
                self._recovery.open_gap(seq, payload, now)  # what is missing may be on its way as live frames
                return False
            self._recovery.give_up_until(seq, f"batches {wanted} to {seq - 1} cannot be replayed", now)
        self._take(session, seq, payload)
        return True

    def _begin_repair(self, session: Session, seq: int, now: float) -> bool:
        """Look at the first answer to a repair: rebuilding is worth it only if more history is there than is known."""
        base = self._stream.position.base_seq
        if base is not None and seq >= base:
            self._repair.nothing_older(seq, base, now)
            self._recovery.cancel()
            self._recovery.request(Purpose.VERIFY, now)
            return False
        self._repair.done()
        self._recovery.clear("history is available again")
        self._stream.position.reset()
        session.purpose = Purpose.SYNC
        self._standing.counters.resyncs += 1
        self._standing.go(State.RESYNCING, "rebuilding from the history that is available again", now)
        return True

    # -- the end ------------------------------------------------------------------------------------------------

    def _count_finds(self, session: Session, now: float) -> None:
        """What a check brought should have arrived live, whether or not the check came to its end."""
        if session.fresh:
            self._verification.found(session.fresh, session.last_item, now)
            self._recovery.missed_live(0, now)

    def _finish(self, session: Session, now: float) -> None:
        """The server has sent all it has: put the waiting batches behind it, or request what is between."""
        stream, replays = self._stream, self._replays
        if not stream.position.known:
            stream.position.known = True
            self._standing.incomplete = False
        if not session.required:
            replays.session = None
            self._verification.done(now)
            if session.purpose is Purpose.VERIFY:
                self._count_finds(session, now)
            if session.purpose is Purpose.REPAIR:
                self._repair.done()
            return
        if not self._recovery.drain(now):
            return
        if stream.resumes_at() is not None and replays.round_next != stream.position.next_seq:
            replays.round_next = stream.position.next_seq
            self._recovery.request(Purpose.CATCH_UP, now)
            return
        while (head := stream.resumes_at()) is not None:
            missing = f"batches {stream.position.next_seq} to {head - 1}"
            self._recovery.give_up_until(head, f"{missing} cannot be replayed", now)
            self._recovery.drain(now)
        self._recovery.to_live(now)
