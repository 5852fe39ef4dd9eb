"""One schedule, run in virtual time: a faulted and a healthy publisher, the real machines on one real core.

Judged all the way, not only at the end: whenever the index trusts a publisher, what it holds must be what that engine
held right after the batch applied last (no more than that if it says `incomplete`). At the end, with all faults over
and time to converge, the invariants of `kvsync_testkit.checks` are judged.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvsync_indexer.core import Context, IndexCore, make_core
from kvsync_indexer.sync import PublisherMachine, SyncSettings
from kvsync_testkit.checks import (
    Answer,
    Row,
    Sample,
    Violation,
    check_agreement,
    check_bounds,
    check_cleared,
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
from kvsync_testkit.faults.clock import VirtualTime
from kvsync_testkit.faults.engine import BLOCK_SIZE, ModelProcess, Published, Workload
from kvsync_testkit.faults.index import MODEL, IndexSide
from kvsync_testkit.faults.network import Knobs, Path
from kvsync_testkit.faults.plan import Fault, Schedule

FAULTED, HEALTHY = "faulted", "healthy"
CONVERGE_S = 30.0
"""Virtual seconds after the last fault in which everything must be as promised."""
TICK_S = 0.1
HEARTBEAT_S = 0.6
SETTINGS = SyncSettings(
    stale_after_s=2.0,
    replay_timeout_s=0.5,
    replay_total_s=6.0,
    verify_after_s=0.5,
    verify_idle_s=3.0,
    repair_s=1.0,
    repair_max_s=4.0,
    quarantine_s=0.2,
    quarantine_max_s=3.0,
    reconnect_max_s=0.5,
)
QUIET_S = 10.0
"""The last seconds of a run, in which nothing happens any more."""
MAX_REPLAYS_PER_S = 1.5

MachineFactory = Callable[[str, SyncSettings, float], PublisherMachine]
CoreFactory = Callable[[], IndexCore]


def build_machine(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    """The real machine."""
    return PublisherMachine(name, settings, now=now, epoch="0")


def build_core() -> IndexCore:
    """The real core, the one that is always there."""
    return make_core("python")


@dataclass(slots=True)
class Engine:
    """A publisher: the process that lives now, those before it, the path to it, the index's side."""

    name: str
    process: ModelProcess
    path: Path
    side: IndexSide
    lives: list[ModelProcess] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found; `trace` are the index's state changes, for reading a failure."""

    schedule: Schedule
    violations: tuple[Violation, ...]
    trace: tuple[str, ...] = ()
    batches: int = 0

    @property
    def failed(self) -> bool:
        """Some promise was broken."""
        return bool(self.violations)

    def __str__(self) -> str:
        found = "".join(f"\n  {one}" for one in self.violations[:8])
        trace = "".join(f"\n    {line}" for line in self.trace[-40:])
        return f"{self.schedule}\n  violations:{found or ' none'}\n  states:{trace}"


class Simulation:
    """The world of one schedule."""

    def __init__(
        self,
        schedule: Schedule,
        machine: MachineFactory = build_machine,
        core: CoreFactory = build_core,
        settings: SyncSettings = SETTINGS,
    ) -> None:
        self.schedule = schedule
        self.time = VirtualTime()
        self.violations: list[Violation] = []
        self.heal_s = max([schedule.faulty_s, *(fault.at_s + fault.for_s + 0.4 for fault in schedule.faults)])
        self._machine = machine
        self._core_factory = core
        self._settings = settings
        self._rng = random.Random(f"faults/{schedule.seed}")
        self._payloads: dict[bytes, tuple[ModelProcess, Published]] = {}
        self._core = core()
        self._judged: dict[str, int] = {}
        self._sent: dict[bytes, float] = {}
        self._stop_s = self.heal_s + 0.5
        self._healthy_rows: dict[str, dict[Row, int]] | None = None
        self._healthy_inputs = -1
        self.engines = {name: self._engine(name) for name in (FAULTED, HEALTHY)}

    # -- building ---------------------------------------------------------------------------------------------------

    def _engine(self, name: str) -> Engine:
        process = self._process(name, life=0, salt=hash_of(name), burst=0)
        path = Path(self.time, random.Random(f"path/{name}/{self.schedule.seed}"), process, HEARTBEAT_S)
        return Engine(name, process, path, self._side(name, path), [process])

    def _process(self, name: str, *, life: int, salt: int, burst: int) -> ModelProcess:
        faulted = name == FAULTED
        process = ModelProcess(
            name=f"{name}#{life}",
            salt=salt,
            seed=f"work/{name}/{life}/{self.schedule.seed}",
            workload=self.schedule.workload if faulted else Workload(),
            buffer_steps=self.schedule.buffer_steps if faulted else 4000,
            born_s=life * 7.0 + (0.0 if faulted else 0.5),
        )
        for _ in range(burst):
            self._step(process)
        return process

    def _side(self, name: str, path: Path) -> IndexSide:
        settings = self._settings
        if name == FAULTED:
            settings = _adapt(settings, self.schedule)
        machine = self._machine(name, settings, self.time.now)
        return IndexSide(name, machine, settings, self._core, path, self.time, self._epoch_of, self._judge)

    def _epoch_of(self, payload: bytes) -> str:
        return self._payloads[payload][0].name

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Play the schedule and judge it."""
        for engine in self.engines.values():
            for _ in range(self.schedule.join_after if engine.name == FAULTED else 0):
                self._step(engine.process)
            engine.side.start()
            self._publish_on(engine)
            self._tick_on(engine)
        if not self.schedule.heartbeats:
            self._chatter()
        for fault in self.schedule.faults:
            self.time.at(fault.at_s, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
        self.time.run_until(self.heal_s)
        self.engines[FAULTED].path.knobs = Knobs()
        self.engines[FAULTED].path.release_stalled()
        if self.schedule.departs:
            self.engines[FAULTED].side.depart()
        for number in range(self.schedule.nudges):
            self.time.at(self.heal_s + 1.5 + number * 0.05, lambda: self._nudge(self.engines[FAULTED]))
        self.time.run_until(self.heal_s + CONVERGE_S)
        self._judge_end()
        trace = [f"{at:7.3f} s {state}: {reason}" for at, state, reason in self.engines[FAULTED].side.history.states]
        batches = sum(life.next_seq for engine in self.engines.values() for life in engine.lives)
        return Outcome(self.schedule, tuple(self.violations), tuple(trace), batches)

    def _step(self, process: ModelProcess) -> Published | None:
        done = process.step(self.time.now)
        if done is not None:
            self._payloads[done.payload] = (process, done)
            self._sent[done.payload] = self.time.now
        return done

    def _publish_on(self, engine: Engine) -> None:
        """Publish now and then until the faults are over."""
        if self.time.now >= self._stop_s - 0.5:
            return
        if engine.path.up:
            self._publish(engine)
        pace_s = self.schedule.pace_s if engine.name == FAULTED else 0.05
        self.time.after(engine.path.rng.expovariate(1 / pace_s), lambda: self._publish_on(engine))

    def _publish(self, engine: Engine) -> None:
        done = self._step(engine.process)
        if done is not None:
            engine.path.publish(done.seq, done.payload)

    def _chatter(self) -> None:
        """A publisher without heartbeats is heard by what it publishes."""
        engine = self.engines[FAULTED]
        if self.heal_s + 1.0 < self.time.now < self.heal_s + CONVERGE_S - 1.0:
            self._nudge(engine)
        self.time.after(0.5, self._chatter)

    def _nudge(self, engine: Engine) -> None:
        done = None
        while done is None:  # a batch that is lost once more would say nothing
            done = self._step(engine.process)
        engine.path.publish(done.seq, done.payload)

    def _tick_on(self, engine: Engine) -> None:
        engine.side.tick(HEARTBEAT_S, heartbeats=self.schedule.heartbeats or engine.name == HEALTHY)
        if self.time.now < self.heal_s + CONVERGE_S:
            self.time.after(TICK_S if self.time.now < self.heal_s else 2.5 * TICK_S, lambda: self._tick_on(engine))

    # -- faults -----------------------------------------------------------------------------------------------------

    def _begin(self, fault: Fault) -> None:
        engine = self.engines[FAULTED]
        if fault.kind == "disconnect":
            engine.path.cut(self._rng.choice((0.0, 0.03)))
        elif fault.kind == "restart":
            self._restart(engine, fault)
        elif fault.kind == "index_restart":
            self._restart_index()
        else:
            setattr(engine.path.knobs, fault.kind, fault.rate or 1.0)
            self.time.after(fault.for_s, lambda: self._end(fault))
            if fault.kind in ("partition", "stall") and self.schedule.heartbeats:
                self.time.after(HEARTBEAT_S, lambda: self._heartbeat_lost(engine))

    def _end(self, fault: Fault) -> None:
        path = self.engines[FAULTED].path
        setattr(path.knobs, fault.kind, 0.0)
        if fault.kind == "stall":
            path.release_stalled()

    def _heartbeat_lost(self, engine: Engine) -> None:
        if engine.path.knobs.partition or engine.path.knobs.stall:
            engine.path.cut(0.0)

    def _restart(self, engine: Engine, fault: Fault) -> None:
        path, life = engine.path, len(engine.lives)
        if not path.up:
            return
        path.up = False
        if fault.how == "epoch_first":
            engine.side.epoch(str(life))
        if fault.how != "silent":
            path.cut(self._rng.choice((0.0, 0.0, 0.03)))
        salt = engine.process.salt if fault.same_hashes else hash_of(f"{engine.name}{life}")

        def reborn() -> None:
            engine.process = self._process(engine.name, life=life, salt=salt, burst=fault.burst)
            engine.lives.append(engine.process)
            path.join_new_process(engine.process, silently=fault.how == "silent")
            path.up = True

        self.time.after(fault.for_s, reborn)
        if fault.how == "epoch_late":
            self.time.after(fault.for_s + 0.3, lambda: engine.side.epoch(str(life)))

    def _restart_index(self) -> None:
        """The index comes back: from nothing, or from a snapshot that is already a little old."""
        snapshot = self._core.snapshot() if self._rng.random() < 0.5 else None
        known = {name: engine.side for name, engine in self.engines.items()}
        positions = {
            name: (side.machine.position.next_seq, side.machine.position.base_seq, side.machine.position.tail())
            for name, side in known.items()
            if snapshot is not None and side.machine.position.known and not side.removed
        }
        incomplete = {name: side.machine.incomplete for name, side in known.items()}
        held = {name: side.history.last_payload for name, side in known.items()}
        epochs = {name: side.machine.epoch for name, side in known.items()}
        for engine in self.engines.values():
            engine.path.close_link()
            engine.path.close_replay()
        self._core = self._core_factory()
        if snapshot is not None:
            self._core.restore(snapshot)
        for name, engine in self.engines.items():
            old, engine.side = engine.side, self._side(name, engine.path)
            engine.side.history = old.history
            engine.side.machine.epoch = epochs[name]
            if name in positions:
                next_seq, base_seq, tail = positions[name]
                engine.side.machine.resume(next_seq, base_seq, tail, incomplete=incomplete[name])
                engine.side.history.last_payload = held[name]
            else:
                if snapshot is not None:
                    self._core.clear_publisher(name)
                engine.side.forgot()
            engine.side.start()

    # -- judging ----------------------------------------------------------------------------------------------------

    def _judge(self, side: IndexSide) -> None:
        """After every input: what is trusted is what that engine held at that point of its stream."""
        history = side.history
        if side.name == FAULTED and len(history.applied) % 16 == 1:
            self._judge_others()
        if not side.machine.trusted or self._judged.get(side.name) == len(history.applied) or self._deceived(side):
            return
        self._judged[side.name] = len(history.applied)
        truth: dict[Row, int] = {}
        digests: tuple[tuple[str, int, str], ...] = ()
        if history.last_payload is not None:
            _, published = self._payloads[history.last_payload]
            truth, digests = published.truth, published.digests
            if side.name == HEALTHY:
                self.engines[HEALTHY].lags.append(self.time.now - self._sent[history.last_payload])
        # Equal digests spare the comparison of tables, except now and then for the copies, which are not in a digest.
        if len(history.applied) % 8 and side.digests() == digests:
            return
        rows = side.rows()
        if side.machine.incomplete:
            found = check_no_false_positive(side.name, truth, rows)
        else:
            found = check_agreement(side.name, truth, rows)
        self._report(found, f"while trusted at {self.time.now:.3f} s: ")

    def _deceived(self, side: IndexSide) -> bool:
        """Two processes on one stream, and nothing yet that tells them apart: judged a moment later, or at the end.

        That is a replay answered by another process than the stream's, and the first moments after a restart behind an
        unbroken connection, in which a frame of the old process may continue the replay of the new one.
        """
        now = self.time.now
        return side.name == FAULTED and any(
            fault.kind == "replay_other" or (fault.how == "silent" and 0.0 <= now - fault.at_s < fault.for_s + 1.0)
            for fault in self.schedule.faults
        )

    def _judge_order(self, engine: Engine) -> None:
        """I5, but for mixtures of processes where they cannot be told apart at once."""
        found = check_sequence(engine.side.history.applied)
        if any(fault.kind == "replay_other" or fault.how == "silent" for fault in self.schedule.faults):
            found = [one for one in found if "on top of" not in one.detail]
        self._report(found)

    def _judge_others(self) -> None:
        """I4: since the healthy publisher's own last input its blocks are as they were."""
        side = self.engines[HEALTHY].side
        before, self._healthy_rows = self._healthy_rows, {HEALTHY: side.rows()}
        if before is not None and self._healthy_inputs == len(side.history.applied):
            self._report(check_isolation(before, self._healthy_rows, (FAULTED,)))
        self._healthy_inputs = len(side.history.applied)

    def _report(self, found: Sequence[Violation], when: str = "") -> None:
        self.violations += [Violation(one.invariant, one.publisher, when + one.detail) for one in found]

    def _judge_end(self) -> None:
        for engine in self.engines.values():
            side = engine.side
            if side.removed:
                self._report(check_departure(engine.name, self.heal_s, side.history.after_removal, 0.0))
                continue
            if not side.machine.trusted:
                detail = f"still {side.machine.state} {CONVERGE_S:g} s after the last fault: {side.machine.reason}"
                self.violations.append(Violation("I1", engine.name, detail))
                continue
            self._judge_blocks(engine)
            self._report(check_prefix_closure(self._answers(engine), {engine.name: side.rows()}))
        for engine in self.engines.values():
            history = engine.side.history
            self._judge_order(engine)
            self._report(check_staleness(history.trust, self._settings.stale_after_s, TICK_S * 3)[:3])
            self._report(check_bounds(self._sizes(engine), self._limits(engine)))
        self._judge_healthy()

    def _judge_blocks(self, engine: Engine) -> None:
        process, rows, machine = engine.process, engine.side.rows(), engine.side.machine
        whole = engine.side.settings.replay and process.whole_history
        if whole or not machine.incomplete:
            self._report(check_agreement(engine.name, process.truth, rows), "at the end: ")
            self._report(check_no_loss(engine.name, process.truth, rows), "at the end: ")
        self._report(check_no_false_positive(engine.name, process.truth, rows), "at the end: ")
        self._report(check_epoch(engine.name, rows, process.ever_stored), "at the end: ")
        self._report(check_cleared(engine.name, rows, process.log), "at the end: ")

    def _answers(self, engine: Engine) -> list[Answer]:
        answers = []
        for number in range(engine.process.workload.chains):
            chain = engine.process.chain(number, engine.process.workload.longest)
            for length in range(1, len(chain) + 1):
                tokens = [token for _, part in chain[:length] for token in part]
                found = [one for one in self._core.match(Context(MODEL), tokens) if one.publisher == engine.name]
                blocks = found[0].tokens // BLOCK_SIZE if found else 0
                answers.append(Answer(engine.name, tuple(item[0] for item in chain[:length]), blocks))
        return answers

    def _sizes(self, engine: Engine) -> list[Sample]:
        history, end = engine.side.history, self.heal_s + CONVERGE_S
        late = [at for at in history.replays if at > end - QUIET_S]
        return [
            Sample(end, "frames buffered", history.most_buffered),
            Sample(end, "replays a second at rest", len(late) / QUIET_S),
        ]

    def _limits(self, engine: Engine) -> dict[str, float]:
        frames = engine.side.settings.buffer_frames
        return {"frames buffered": float(frames), "replays a second at rest": MAX_REPLAYS_PER_S}

    def _judge_healthy(self) -> None:
        """I12: the other publisher never noticed."""
        if any(fault.kind == "index_restart" for fault in self.schedule.faults):
            return
        engine = self.engines[HEALTHY]
        lost = [f"{at:.3f} s {state}" for at, state, _ in engine.side.history.states if state not in _CALM]
        for what in lost[:3]:
            self.violations.append(Violation("I12", HEALTHY, f"left the trusted state: {what}"))
        during = {HEALTHY: engine.lags[len(engine.lags) // 4 :]}
        wrong = [one for one in self.violations if one.publisher == HEALTHY]
        self._report(check_non_interference({HEALTHY: [0.002]}, during, factor=2.0, floor_s=0.02, disagreements=wrong))


_CALM = frozenset({"replaying", "live"})


def _adapt(settings: SyncSettings, schedule: Schedule) -> SyncSettings:
    changes: dict[str, object] = {"replay": schedule.replay}
    if schedule.small_buffers:
        changes |= {"buffer_frames": 4, "ring": 16}
    return replace_settings(settings, changes)


def replace_settings(settings: SyncSettings, changes: dict[str, object]) -> SyncSettings:
    """The settings with some of them changed."""
    fields = {name: getattr(settings, name) for name in SyncSettings.__slots__}
    return SyncSettings(**{**fields, **changes})


def hash_of(text: str) -> int:
    """A number for a name, the same in every process."""
    return random.Random(text).getrandbits(48)


def run_schedule(
    schedule: Schedule, machine: MachineFactory = build_machine, core: CoreFactory = build_core
) -> Outcome:
    """Play one schedule and judge it."""
    return Simulation(schedule, machine, core).run()
