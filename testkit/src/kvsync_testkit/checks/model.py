"""A small system that is watched while it runs: engines, an index that follows them, and a router, all in one thread.

It exists for the tests of the checkers. Its history has facts about every invariant, and each bug of `BUGS` can be
planted in its index or router, so that a checker which lets a bug pass is found out. `kvsync_testkit.faults` plays the
real follower and the real cores against faults; here nothing is real, and a run takes a few milliseconds.
"""

import random
from collections.abc import Mapping

from kvsync_testkit.checks.facts import Answer, AppliedBatch, Forgotten, Row, Sample, Sighting, Transition, TrustSample
from kvsync_testkit.checks.history import History, Isolated, Limits
from kvsync_testkit.checks.routing import Outcome, RequestSent
from kvsync_testkit.naming import unknown_name

BUGS: Mapping[str, str] = {
    "counts copies once": "I1",
    "ignores removals": "I2",
    "skips the gap check": "I3",
    "shares one map": "I4",
    "applies duplicates": "I5",
    "keeps a dead epoch": "I6",
    "ignores clears": "I7",
    "matches too much": "I8",
    "never goes stale": "I9",
    "keeps deleted pods": "I10",
    "buffers without bound": "I11",
    "lets one fault delay all": "I12",
    "fails without its index": "I13",
    "answers twice": "I13",
    "loses requests": "I13",
    "routes to deleted pods": "I13",
}
"""Every planted bug, with the invariant whose checker must report it."""

LIMITS = Limits(sizes={"batches queued": 8.0})
FAULTED, HEALTHY, LEAVING = "pod-0", "pod-1", "pod-2"
_STEP_S = 0.1
_CHAINS = 8
_RESTART, _SILENT, _HEARD, _GONE, _END = 60, 100, 180, 120, 240
"""Numbers of the steps at which the faulted pod restarts, falls silent, is heard again, and the leaving pod goes."""
_AWAY = range(130, 150)
"""The steps in which the router cannot reach the index."""
_LOST = (30, _END - 2)
"""The steps whose batch of the faulted pod is lost and must be replayed; it has blocks that no other batch has."""
_CLEAR = _END - 20
"""The step in which the healthy pod is cleared."""


class _Engine:
    """Stores chains of blocks, removes and clears them, and keeps every batch of its life for a replay."""

    def __init__(self, pod: int, life: int, rng: random.Random) -> None:
        self.epoch = f"life-{life}"
        self.rows: dict[Row, int] = {}
        self.log: list[Transition] = []
        self.batches: list[list[Transition]] = []
        self._base = (pod * 10 + life) * 1000
        self._rng = rng

    def step(self, kind: str) -> int:
        """Publish one batch, `stored`, `unique` (stored too), `removed` or `cleared`, and return its number."""
        if kind == "cleared":
            batch = [Transition("cleared")]
        elif kind == "removed" and self.rows:
            batch = [Transition("removed", self._rng.choice(sorted(self.rows)))]
        else:
            batch = self._store(_CHAINS if kind == "unique" else self._rng.randrange(_CHAINS))
        for entry in batch:
            _apply(self.rows, entry)
        self.log += batch
        self.batches.append(batch)
        return len(self.batches) - 1

    def _store(self, chain: int) -> list[Transition]:
        first = self._base + 10 * chain
        return [Transition("stored", Row(first + at, "GPU")) for at in range(self._rng.randint(1, 4))]

    def chains(self) -> list[tuple[int, ...]]:
        """Prompts of 1 to 4 blocks for every chain."""
        return [
            tuple(self._base + 10 * chain + at for at in range(length))
            for chain in range(_CHAINS)
            for length in range(1, 5)
        ]


class _Follower:
    """The index's side of one pod."""

    def __init__(self, name: str, rows: dict[Row, int], history: list[AppliedBatch | Forgotten], bug: str) -> None:
        self.name, self.rows, self._history, self._bug = name, rows, history, bug
        self.heard_s = 0.0
        self.epoch = ""
        self.seq = -1

    def receive(self, engine: _Engine, seq: int, now: float) -> None:
        self.heard_s = now
        if self.epoch != engine.epoch:
            if self.epoch and self._bug != "keeps a dead epoch":
                self.rows.clear()
                self._history.append(Forgotten(now, self.name))
            self.epoch, self.seq = engine.epoch, -1
        if seq <= self.seq and self._bug != "applies duplicates":
            return
        first = seq if self._bug == "skips the gap check" else min(self.seq + 1, seq)
        for number in range(first, seq + 1):
            for entry in engine.batches[number]:
                self._apply(entry)
            self._history.append(AppliedBatch(now, self.name, engine.epoch, number))
        self.seq = seq

    def _apply(self, entry: Transition) -> None:
        if self._bug == {"removed": "ignores removals", "cleared": "ignores clears"}.get(entry.kind):
            return
        _apply(self.rows, entry, once=self._bug == "counts copies once")


def record_history(seed: int, bug: str = "") -> History:
    """Run the system, without a bug or with one of `BUGS`, and return what was observed of it; judge by `LIMITS`.

    Raises:
        ConfigurationError: no bug has this name.
    """
    if bug and bug not in BUGS:
        raise unknown_name("bug", bug, BUGS)
    return _Run(random.Random(seed), bug).play()


class _Run:
    def __init__(self, rng: random.Random, bug: str) -> None:
        self.rng, self.bug = rng, bug
        self.engines = {name: _Engine(at, 0, rng) for at, name in enumerate((FAULTED, HEALTHY, LEAVING))}
        self.applied: list[AppliedBatch | Forgotten] = []
        shared: dict[Row, int] = {}
        self.followers = {
            name: _Follower(name, shared if bug == "shares one map" else {}, self.applied, bug) for name in self.engines
        }
        self.trust: list[TrustSample] = []
        self.sizes: list[Sample] = []
        self.seen: list[Sighting] = []
        self.sent: list[RequestSent] = []
        self.outcomes: list[Outcome] = []
        self.lags: tuple[list[float], list[float]] = ([], [])
        self.queued = 0

    def play(self) -> History:
        for step in range(_END):
            now = step * _STEP_S
            if step == _RESTART:
                self.engines[FAULTED] = _Engine(0, 1, self.rng)
            if step == _GONE:
                del self.engines[LEAVING]
                if self.bug != "keeps deleted pods":
                    self.followers.pop(LEAVING)
            for name in self.engines:
                self._publish(name, step, now)
            self._look(step, now)
            self._request(step, now)
        return self._history()

    def _publish(self, name: str, step: int, now: float) -> None:
        faulted = name == FAULTED
        if faulted and _SILENT <= step < _HEARD:
            return
        engine, follower = self.engines[name], self.followers[name]
        lost = faulted and step in _LOST
        cleared = name == HEALTHY and step == _CLEAR
        seq = engine.step("unique" if lost else "cleared" if cleared else "stored" if step % 3 else "removed")
        if not lost:
            follower.receive(engine, seq, now)
            if step % 7 == 0:
                follower.receive(engine, seq, now)
        if name == HEALTHY:
            during = _SILENT <= step < _HEARD
            late = during and self.bug == "lets one fault delay all"
            self.lags[during].append(0.5 if late else self.rng.uniform(0.001, 0.003))

    def _look(self, step: int, now: float) -> None:
        silent = _SILENT <= step < _HEARD
        self.queued = self.queued + 1 if silent and self.bug == "buffers without bound" else int(silent)
        self.sizes.append(Sample(now, "batches queued", float(self.queued)))
        for name, follower in self.followers.items():
            fresh = now - follower.heard_s <= LIMITS.stale_after_s or self.bug == "never goes stale"
            if name in self.engines:
                self.trust.append(TrustSample(now, name, fresh, follower.heard_s))
            self.seen.append(Sighting(now, name, "blocks in the index"))

    def _request(self, step: int, now: float) -> None:
        self.sent.append(RequestSent(now, step))
        if self.bug == "loses requests" and step % 50 == 49:
            return
        if self.bug == "fails without its index" and step in _AWAY:
            self.outcomes.append(Outcome(now + 0.01, step, "refused", 503))
            return
        targets = [*self.engines, *([LEAVING] if self.bug == "routes to deleted pods" else [])]
        self.outcomes.append(Outcome(now + 0.01, step, "answered", 200, targets[step % len(targets)]))
        if self.bug == "answers twice" and step % 50 == 49:
            self.outcomes.append(self.outcomes[-1])

    def _history(self) -> History:
        before = self._tables()
        engine = self.engines[FAULTED]
        self.followers[FAULTED].receive(engine, engine.step("stored"), _END * _STEP_S)
        after = self._tables()
        return History(
            truth={name: dict(one.rows) for name, one in self.engines.items()},
            index=after,
            logs={name: one.log for name, one in self.engines.items()},
            isolated=[Isolated(before, after, [FAULTED])],
            applied=self.applied,
            answers=self._answers(after),
            trust=self.trust,
            departed={LEAVING: _GONE * _STEP_S},
            seen=self.seen,
            sizes=self.sizes,
            quiet_lags_s={HEALTHY: self.lags[False]},
            lags_s={HEALTHY: self.lags[True]},
            sent=self.sent,
            outcomes=self.outcomes,
        )

    def _tables(self) -> dict[str, dict[Row, int]]:
        return {name: dict(follower.rows) for name, follower in self.followers.items() if name in self.engines}

    def _answers(self, tables: Mapping[str, Mapping[Row, int]]) -> list[Answer]:
        answers = []
        for name, engine in self.engines.items():
            for query in engine.chains():
                held = [Row(key, "GPU") in tables[name] for key in query]
                matched = held.index(False) if False in held else len(held)
                extra = self.bug == "matches too much" and 0 < matched < len(query)
                answers.append(Answer(name, query, matched + extra))
        return answers


def _apply(rows: dict[Row, int], entry: Transition, *, once: bool = False) -> None:
    if entry.kind == "cleared":
        rows.clear()
    elif entry.row is not None and entry.kind == "stored":
        rows[entry.row] = 1 if once else rows.get(entry.row, 0) + 1
    elif entry.row is not None:
        left = rows.pop(entry.row, 0) - 1
        if left > 0:
            rows[entry.row] = left
