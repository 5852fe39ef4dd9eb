"""One schedule, run in virtual time: a faulted and a healthy publisher, followed for real on one real core.

Judged all the way, not only at the end: whenever the index trusts a publisher, what it holds must be what that engine
held right after the batch applied last (no more than that if it says `incomplete`). At the end, with all faults over
and time to converge, the invariants of `kvsync_testkit.checks` are judged.
"""

import random
from dataclasses import dataclass

from kvsync_indexer.sync import State, SyncSettings
from kvsync_testkit.checks import Violation
from kvsync_testkit.faults.clock import SimulationClock
from kvsync_testkit.faults.dying import SurvivingMark
from kvsync_testkit.faults.engine import ModelProcess, Published, Workload
from kvsync_testkit.faults.index import IndexSide
from kvsync_testkit.faults.judging import CONVERGE_S, FAULTED, GRACE_S, HEALTHY, TICK_S, Engine, Judge
from kvsync_testkit.faults.knobs import Knobs
from kvsync_testkit.faults.network import Path
from kvsync_testkit.faults.plan import Fault, Schedule
from kvsync_testkit.faults.recording import IndexHistory
from kvsync_testkit.faults.snapshots import SavedIndex, resume, save
from kvsync_testkit.faults.subject import REAL, Subject

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


_UNDISTURBED = Schedule(seed=0, workload=Workload())
"""What is done to the healthy publisher: nothing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run found; `trace` lists the state changes of the faulted publisher."""

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
        subject: Subject = REAL,
        settings: SyncSettings = SETTINGS,
    ) -> None:
        self.schedule = schedule
        self.time = SimulationClock()
        self.heal_s = max([schedule.faulty_s, *(fault.at_s + fault.for_s + 0.4 for fault in schedule.faults)])
        self._subject = subject
        self._settings = settings
        self._rng = random.Random(f"faults/{schedule.seed}")
        self._core = subject.core()
        self._mark = SurvivingMark()
        self.time.index_died = self._index_died
        self._stop_s = self.heal_s + 0.5
        self.judge = Judge(schedule, self.time, self.heal_s, settings.stale_after_s)
        self.engines = self.judge.engines
        self.engines.update({name: self._engine(name) for name in (FAULTED, HEALTHY)})

    # -- building ---------------------------------------------------------------------------------------------------

    def _engine(self, name: str) -> Engine:
        process = self._process(name, life=0, salt=hash_of(name), burst=0)
        rng = random.Random(f"path/{name}/{self.schedule.seed}")
        plan = self.schedule if name == FAULTED else _UNDISTURBED
        path = Path(
            self.time,
            rng,
            process,
            HEARTBEAT_S,
            busy_s=plan.busy_s,
            monitor_lag_s=plan.monitor_lag_s,
            late_reads=plan.late_reads,
        )
        return Engine(name, process, path, self._side(name, path), [process])

    def _process(self, name: str, *, life: int, salt: int, burst: int) -> ModelProcess:
        faulted = name == FAULTED
        process = ModelProcess(
            name=f"{name}#{life}",
            life=life,
            salt=salt,
            seed=f"work/{name}/{life}/{self.schedule.seed}",
            workload=self.schedule.workload if faulted else Workload(),
            buffer_steps=self.schedule.buffer_steps if faulted else 4000,
            born_s=life * 7.0 + (0.0 if faulted else 0.5),
        )
        for _ in range(burst):
            self._step(process)
        return process

    def _side(self, name: str, path: Path, history: IndexHistory | None = None) -> IndexSide:
        settings = self._settings
        if name == FAULTED:
            settings = _adapt(settings, self.schedule)
        machine = self._subject.machine(name, settings, self.time.now)
        return IndexSide(
            name,
            machine,
            self._subject.follower,
            self._core,
            path,
            self.time,
            self.judge.payloads.__getitem__,
            self.judge.judge,
            self._mark,
            history,
            "last_copy" if name == FAULTED and self.schedule.workload.last_copy_only else None,
        )

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
            self.time.call_at(fault.at_s, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
        self.time.run_until(self.heal_s)
        self.engines[FAULTED].path.knobs = Knobs()
        self.engines[FAULTED].path.release_stalled()
        if self.schedule.loses_tail:
            self._step(self.engines[FAULTED].process)
        if self.schedule.departs:
            self.engines[FAULTED].side.depart()
        for number in range(self.schedule.nudges):
            self.time.call_at(self.heal_s + 1.5 + number * 0.05, lambda: self._nudge(self.engines[FAULTED]))
        self.time.run_until(self.heal_s + CONVERGE_S)
        self._finish_replays()
        self.judge.judge_end(self._core)
        trace = [f"{at:7.3f} s {state}: {reason}" for at, state, reason in self.engines[FAULTED].side.history.states]
        batches = sum(life.next_seq for engine in self.engines.values() for life in engine.lives)
        return Outcome(self.schedule, tuple(self.judge.violations), tuple(trace), batches)

    def _finish_replays(self) -> None:
        """Let a repair that happens to be under way at the end get its answer."""
        end = self.time.now + GRACE_S
        while self.time.now < end and any(
            engine.side.machine.state is State.RESYNCING for engine in self.engines.values()
        ):
            self.time.run_until(min(self.time.now + TICK_S, end))

    def _step(self, process: ModelProcess) -> Published | None:
        done = process.step(self.time.now)
        if done is not None:
            self.judge.payloads[done.payload] = (process, done)
            if done.lethal:
                self._mark.lethal.add(done.payload)
            self.judge.sent[done.payload] = self.time.now
        return done

    def _publish_on(self, engine: Engine) -> None:
        """Publish at random times until the faults are over."""
        if self.time.now >= self._stop_s - 0.5:
            return
        if engine.path.up:
            self._publish(engine)
        pace_s = self.schedule.pace_s if engine.name == FAULTED else 0.05
        self.time.call_later(engine.path.rng.expovariate(1 / pace_s), lambda: self._publish_on(engine))

    def _publish(self, engine: Engine) -> None:
        done = self._step(engine.process)
        if done is not None:
            engine.path.publish(done.seq, done.payload)

    def _chatter(self) -> None:
        """Let a publisher without heartbeats be heard by what it publishes."""
        engine = self.engines[FAULTED]
        if self.heal_s + 1.0 < self.time.now < self.heal_s + CONVERGE_S - 1.0:
            self._nudge(engine)
        self.time.call_later(0.5, self._chatter)

    def _nudge(self, engine: Engine) -> None:
        done = None
        while done is None:  # a batch that is lost once more would say nothing
            done = self._step(engine.process)
        engine.path.publish(done.seq, done.payload)

    def _tick_on(self, engine: Engine) -> None:
        if engine.path.knobs.mute:
            self.judge.judge_muted(engine.side, min(one.at_s for one in self.schedule.faults if one.kind == "mute"))
        engine.side.tick(HEARTBEAT_S, heartbeats=self.schedule.heartbeats or engine.name == HEALTHY)
        if self.time.now < self.heal_s + CONVERGE_S + GRACE_S:
            self.time.call_later(TICK_S if self.time.now < self.heal_s else 2.5 * TICK_S, lambda: self._tick_on(engine))

    # -- faults -----------------------------------------------------------------------------------------------------

    def _begin(self, fault: Fault) -> None:
        engine = self.engines[FAULTED]
        if fault.kind == "disconnect":
            engine.path.cut(self._rng.choice((0.0, 0.03)))
        elif fault.kind == "restart":
            self._restart(engine, fault)
        elif fault.kind == "index_restart":
            saved = self._save() if self._rng.random() < 0.5 else None
            self.time.call_later(self._rng.choice((0.0, 0.2)), lambda: self._restart_index(saved))
        else:
            setattr(engine.path.knobs, fault.kind, fault.rate or 1.0)
            self.time.call_later(fault.for_s, lambda: self._end(fault))
            if fault.kind in ("partition", "stall") and self.schedule.heartbeats:
                self.time.call_later(HEARTBEAT_S, lambda: self._heartbeat_lost(engine))

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

        self.time.call_later(fault.for_s, reborn)
        if fault.how == "epoch_late":
            self.time.call_later(fault.for_s + 0.3, lambda: engine.side.epoch(str(life)))

    def _save(self) -> SavedIndex:
        return save(self._core, [engine.side for engine in self.engines.values()])

    def _index_died(self) -> None:
        """The process ended over a payload; the next one must not end over the same one again and again."""
        self._mark.take_over()
        if self._mark.deaths > 2 * len(self._mark.lethal):
            detail = f"{self._mark.deaths} processes ended over {len(self._mark.lethal)} payloads"
            self.judge.violations.append(Violation("I12", FAULTED, detail))
            self._mark.lethal.clear()
        self._restart_index(None)

    def _restart_index(self, saved: SavedIndex | None) -> None:
        """Start a new index, from nothing or from a snapshot that may be a little old."""
        for engine in self.engines.values():
            engine.path.close_link(for_good=True)
            engine.path.replays.close()
        self._core = self._subject.core()
        if saved is not None:
            self._core.restore(saved.core)
        for name, engine in self.engines.items():
            epoch = engine.side.machine.epoch  # discovery knows the present one
            engine.side = self._side(name, engine.path, engine.side.history)
            engine.side.machine.standing.epoch = epoch
            resume(engine.side, saved.streams.get(name) if saved is not None else None)
            engine.side.start()


def _adapt(settings: SyncSettings, schedule: Schedule) -> SyncSettings:
    changes: dict[str, object] = {"replay": schedule.replay}
    if schedule.small_buffers:
        changes |= {"buffer_frames": 4, "ring": 16}
    return replace_settings(settings, changes)


def replace_settings(settings: SyncSettings, changes: dict[str, object]) -> SyncSettings:
    """Return the settings with some of them changed."""
    fields = {name: getattr(settings, name) for name in SyncSettings.__slots__}
    return SyncSettings(**{**fields, **changes})


def hash_of(text: str) -> int:
    """Return a number for a name, the same in every process."""
    return random.Random(text).getrandbits(48)


def run_schedule(schedule: Schedule, subject: Subject = REAL) -> Outcome:
    """Play one schedule and judge it."""
    return Simulation(schedule, subject).run()
