"""The judging of a run: after every step in which the index trusts a publisher, and thoroughly at the end.

The facts come from the model engines, which keep their tables after each batch; the checkers are those of
`kvsync_testkit.checks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kvsync_indexer.core import Context, IndexCore
from kvsync_testkit.checks import (
    Answer,
    Row,
    Sample,
    Violation,
    check_agreement,
    check_bounds,
    check_cleared,
    check_counts,
    check_departure,
    check_epoch,
    check_isolation,
    check_no_false_positive,
    check_no_loss,
    check_non_interference,
    check_prefix_closure,
    check_sequence,
    check_staleness,
)
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.faults.engine import BLOCK_SIZE, ModelProcess, Published
from kvsync_testkit.faults.index import MODEL, IndexSide
from kvsync_testkit.faults.network import Path
from kvsync_testkit.faults.plan import Schedule

FAULTED, HEALTHY = "faulted", "healthy"
CONVERGE_S = 30.0
"""Virtual seconds after the last fault, by the end of which every promise must hold."""
GRACE_S = 0.8
"""Virtual seconds for a replay that is under way at that moment."""
TICK_S = 0.1
QUIET_S = 10.0
"""The last seconds of a run, in which nothing happens."""
MAX_REPLAYS_PER_S = 1.5

_CALM = frozenset({"replaying", "live"})


@dataclass(slots=True)
class Engine:
    """A publisher: its present process, all its processes, the path to it, and the index's side."""

    name: str
    process: ModelProcess
    path: Path
    side: IndexSide
    lives: list[ModelProcess] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)


class Judge:
    """Collects violations. The simulation fills `engines` at first, and `payloads` and `sent` as it publishes."""

    def __init__(self, schedule: Schedule, time: VirtualClock, heal_s: float, stale_after_s: float) -> None:
        self.violations: list[Violation] = []
        self.engines: dict[str, Engine] = {}
        self.payloads: dict[bytes, tuple[ModelProcess, Published]] = {}
        self.sent: dict[bytes, float] = {}
        self._schedule = schedule
        self._time = time
        self._heal_s = heal_s
        self._stale_after_s = stale_after_s
        self._judged: dict[str, int] = {}
        self._healthy_rows: dict[str, dict[Row, int]] | None = None
        self._healthy_inputs = -1

    def judge(self, side: IndexSide) -> None:
        """Check after an input that what is matched is what the engine held at that point of its stream."""
        history = side.history
        if side.name == FAULTED and len(history.applied) % 16 == 1:
            self._judge_others()
        if not side.matched or self._judged.get(side.name) == len(history.applied) or self._deceived(side):
            return
        self._judged[side.name] = len(history.applied)
        truth: dict[Row, int] = {}
        digests: tuple[tuple[str, int, str], ...] = ()
        if history.last_payload is not None:
            process, published = self.payloads[history.last_payload]
            if process.life < side.first_life:
                detail = f"matched at {self._time.now:.3f} s after a batch of {process.name}, which has ended"
                self.violations.append(Violation("I6", side.name, detail))
            truth, digests = published.truth, published.digests
            if side.name == HEALTHY:
                self.engines[HEALTHY].lags.append(self._time.now - self.sent[history.last_payload])
        # Equal digests spare the comparison of tables, except now and then for the copies, which are not in a digest.
        if len(history.applied) % 8 and side.digests() == digests:
            return
        rows = side.rows()
        if side.machine.incomplete or history.assumed_complete:
            found = check_no_false_positive(side.name, truth, rows)
        else:
            found = check_agreement(side.name, truth, rows)
        self._report(found, f"while trusted at {self._time.now:.3f} s: ")

    def _deceived(self, side: IndexSide) -> bool:
        """Return whether two processes are on one stream and nothing can tell them apart yet; judging waits until then.

        That is so while another process than the stream's answers replays, in the first moments after a restart behind
        an unbroken connection, when a batch of the old process may continue the replay of the new one, and while the
        index has not been told of a new connection.
        """
        now = self._time.now
        if side.path.monitor_behind:
            return True
        return side.name == FAULTED and any(
            fault.kind == "replay_other" or (fault.how == "silent" and 0.0 <= now - fault.at_s < fault.for_s + 1.0)
            for fault in self._schedule.faults
        )

    def _judge_order(self, engine: Engine) -> None:
        """Check I5, except for mixtures of processes that cannot be told apart at once."""
        found = check_sequence(engine.side.history.applied)
        if self._schedule.monitor_lag_s or any(
            fault.kind == "replay_other" or fault.how == "silent" for fault in self._schedule.faults
        ):
            found = [one for one in found if "on top of" not in one.detail]
        self._report(found)

    def _judge_others(self) -> None:
        """Check I4: the healthy publisher's blocks have not changed since its own last input."""
        side = self.engines[HEALTHY].side
        before, self._healthy_rows = self._healthy_rows, {HEALTHY: side.rows()}
        if before is not None and self._healthy_inputs == len(side.history.applied):
            self._report(check_isolation(before, self._healthy_rows, (FAULTED,)))
        self._healthy_inputs = len(side.history.applied)

    def _report(self, found: Sequence[Violation], when: str = "") -> None:
        self.violations += [replace(one, detail=when + one.detail) for one in found]

    def judge_end(self, core: IndexCore) -> None:
        """Check after enough time to converge that what is left is right."""
        for engine in self.engines.values():
            side = engine.side
            if side.removed:
                self._report(check_departure(engine.name, self._heal_s, side.history.after_removal, 0.0))
                continue
            if engine.process.mixed:
                if side.matched:
                    self.violations.append(Violation("I4", engine.name, "matched although two ranks share its stream"))
                continue
            if not side.matched:
                detail = f"still {side.machine.state} {CONVERGE_S:g} s after the last fault: {side.machine.reason}"
                self.violations.append(Violation("I1", engine.name, detail))
                continue
            self._judge_blocks(engine)
            self._judge_completeness(engine)
            self._report(check_prefix_closure(self._answers(core, engine), {engine.name: side.rows()}))
        for engine in self.engines.values():
            history = engine.side.history
            self._judge_follower(engine.side)
            self._judge_order(engine)
            self._report(check_staleness(history.trust, self._stale_after_s, TICK_S * 3)[:3])
            self._report(check_bounds(self._sizes(engine), self._limits(engine)))
        self._judge_healthy()

    def _judge_follower(self, side: IndexSide) -> None:
        """Check that the follower does what it announces and counts."""
        totals, name = side.follower.totals, side.name
        for at in side.changed_while_matched[:3]:
            self.violations.append(Violation("I2", name, f"matched at {at:.3f} s while its blocks were being changed"))
        for found in side.completed_early[:3]:
            self.violations.append(Violation("I1", name, f"called complete: {found}"))
        size = BLOCK_SIZE if totals.block_size is None else totals.block_size
        reported = {"batches": totals.batches, "tokens per block": size}
        self._report(check_counts(name, reported, {"batches": side.core.batches, "tokens per block": BLOCK_SIZE}))

    def _judge_blocks(self, engine: Engine) -> None:
        process, rows, machine = engine.process, engine.side.rows(), engine.side.machine
        whole = engine.side.settings.replay and process.whole_history
        if not engine.side.history.assumed_complete and (whole or not machine.incomplete):
            self._report(check_agreement(engine.name, process.truth, rows), "at the end: ")
            self._report(check_no_loss(engine.name, process.truth, rows), "at the end: ")
        self._report(check_no_false_positive(engine.name, process.truth, rows), "at the end: ")
        self._report(check_epoch(engine.name, rows, process.ever_stored), "at the end: ")
        self._report(check_cleared(engine.name, rows, process.log), "at the end: ")

    def _judge_completeness(self, engine: Engine) -> None:
        """A publisher that was assumed to be complete must not be called so while blocks wait for unknown parents."""
        side = engine.side
        _, orphans = side.core.sizes(engine.name)
        if side.history.assumed_complete and orphans and not side.machine.incomplete:
            self.violations.append(Violation("I1", engine.name, f"called complete while {orphans} blocks wait"))

    def judge_muted(self, side: IndexSide, since_s: float) -> None:
        """While no batch arrives live, only checks show what an engine does, so that it soon must not be matched.

        A rebuild that happens meanwhile brings the index up to date as a check does, so the next check is due an idle
        period after that, and not after the last live batch.
        """
        settings = side.settings
        allowed_s = 2 * settings.verify_idle_s + 3 * settings.verify_doubt_s
        if side.matched and self._time.now - since_s > allowed_s:
            detail = f"matched at {self._time.now:.3f} s although nothing has arrived live since {since_s:.3f} s"
            self.violations.append(Violation("I9", side.name, detail))

    def _answers(self, core: IndexCore, engine: Engine) -> list[Answer]:
        answers = []
        for number in range(engine.process.workload.chains):
            chain = engine.process.chain(number, engine.process.workload.longest)
            for length in range(1, len(chain) + 1):
                tokens = [token for _, part in chain[:length] for token in part]
                found = [one for one in core.match(Context(MODEL), tokens) if one.publisher == engine.name]
                blocks = found[0].tokens // BLOCK_SIZE if found else 0
                answers.append(Answer(engine.name, tuple(item[0] for item in chain[:length]), blocks))
        return answers

    def _sizes(self, engine: Engine) -> list[Sample]:
        history, end = engine.side.history, self._heal_s + CONVERGE_S
        late = [at for at in history.replays if at > end - QUIET_S]
        return [
            Sample(end, "frames buffered", history.most_buffered),
            Sample(end, "replays per second at rest", len(late) / QUIET_S),
        ]

    def _limits(self, engine: Engine) -> dict[str, float]:
        frames = engine.side.settings.buffer_frames
        return {"frames buffered": float(frames), "replays per second at rest": MAX_REPLAYS_PER_S}

    def _judge_healthy(self) -> None:
        """Check I12: the healthy publisher was not disturbed."""
        if self._schedule.workload.lethal_batches or any(one.kind == "index_restart" for one in self._schedule.faults):
            return
        engine = self.engines[HEALTHY]
        lost = [f"{at:.3f} s {state}" for at, state, _ in engine.side.history.states if state not in _CALM]
        for what in lost[:3]:
            self.violations.append(Violation("I12", HEALTHY, f"left the trusted state: {what}"))
        during = {HEALTHY: engine.lags[len(engine.lags) // 4 :]}
        wrong = [one for one in self.violations if one.publisher == HEALTHY]
        self._report(check_non_interference({HEALTHY: [0.002]}, during, factor=2.0, floor_s=0.02, disagreements=wrong))
