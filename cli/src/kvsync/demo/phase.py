"""Runs one leg of a demo: new processes, the replay, perhaps with a kill, a quiet period, and the audit."""

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field

import aiohttp

from kvsync.demo.legs import Leg
from kvsync.demo.settings import DemoSettings, Workload
from kvsync.demo.settling import AuditTotals, audit_all, sum_counter, wait_quiet
from kvsync.demo.watching import Restart, Sample, Watcher
from kvsync.load.client import Outcome, Pause, Replayer
from kvsync.load.summary import Summary, summarize
from kvsync.local.stack import Stack
from kvsync.prometheus_text import counter_total, histogram_quantile
from kvsync.replay.limits import find_model
from kvsync_indexer.client import AsyncIndexClient

RESTART_AT = 0.15
"""The engine is killed when this share of the requests has ended, early enough for the curves to show the recovery."""
RESTARTED_BY = 0.7
"""Requests after this share wait for the engine if necessary, so that a fast replay does not end before the restart."""
DETECT_DEADLINE_S = 20.0
LIVE_DEADLINE_S = 60.0
DOWN_S = 0.5
"""A killed engine stays down for at least this long, and until the index has noticed."""
TIER_HITS_METRIC = "vllm:external_prefix_cache_hits_total"
LAG_METRIC = "kvsync_indexer_event_visible_seconds"
LAG_SHARES = (("p50", 0.50), ("p99", 0.99))
PREDICTION_METRICS = {
    "requests": "kvsync_indexer_prediction_requests_total",
    "exact": "kvsync_indexer_prediction_exact_total",
    "predicted_tokens": "kvsync_indexer_prediction_predicted_tokens_total",
    "cached_tokens": "kvsync_indexer_prediction_cached_tokens_total",
    "over_tokens": "kvsync_indexer_prediction_over_tokens_total",
    "under_tokens": "kvsync_indexer_prediction_under_tokens_total",
}


@dataclass(slots=True)
class Progress:
    """The state of a running phase, for a view."""

    leg: Leg
    total: int
    outcomes: list[Outcome] = field(default_factory=list)
    watcher: Watcher | None = None
    moments: list[tuple[float, str]] = field(default_factory=list)
    stage: str = "starting"


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """The outcome of one leg."""

    leg: Leg
    outcomes: tuple[Outcome, ...]
    summary: Summary
    samples: tuple[Sample, ...]
    restart: Restart | None
    audit: AuditTotals
    event_lag_ms: dict[str, float | None]
    moments: tuple[tuple[float, str], ...]
    core: str
    tier_hit_tokens: int
    """The hit tokens that came from lower tiers."""
    predictions: dict[str, int]
    """Sums over routed requests of what the index predicted and what the engines had cached.

    All sums are 0 for a policy that does not ask the index.
    """


class Phase:
    """Runs one leg on its own stack of processes."""

    def __init__(
        self,
        leg: Leg,
        settings: DemoSettings,
        workload: Workload,
        stack: Stack,
        session: aiohttp.ClientSession,
        progress: Progress,
    ) -> None:
        self._leg = leg
        self._settings = settings
        self._workload = workload
        self._stack = stack
        self._session = session
        self._progress = progress
        self._dead: list[str] = []
        self._index = AsyncIndexClient(stack.index_url, session=lambda: session)
        self._restarted = asyncio.Event()

    async def run(self) -> PhaseResult:
        """Start the stack, replay the trace, wait until nothing moves, and audit.

        Raises:
            KvsyncError: a process died, or a step could not be carried out.
        """
        await self._stack.start(self._leg.policy, self._settings.seed)
        self._progress.stage = "replaying"
        watcher = self._progress.watcher = Watcher(self._index, on_change=self._note_state)
        async with _in_background(watcher.run()), _in_background(self._guard()):
            replaying = asyncio.create_task(self._replay())
            restarting = asyncio.create_task(self._restart_one(watcher)) if self._leg.kill else None
            try:
                outcomes = await replaying
                if restarting is not None:
                    await restarting
            finally:
                for task in filter(None, (replaying, restarting)):
                    task.cancel()
            self._progress.stage = "waiting for quiet"
            await wait_quiet(self._session, self._index, self._stack.engines)
            await watcher.look()
        self._progress.stage = "auditing"
        audit = await audit_all(self._index, self._stack.engines)
        metrics = await self._index.metrics()
        core = (await self._index.readiness()).core
        tier_hits = await sum_counter(self._session, self._stack.engines, TIER_HITS_METRIC)
        self._progress.stage = "done"
        return PhaseResult(
            leg=self._leg,
            outcomes=tuple(outcomes),
            summary=summarize(outcomes),
            samples=tuple(watcher.samples),
            restart=watcher.restart,
            audit=audit,
            event_lag_ms={name: _ms(histogram_quantile(metrics, LAG_METRIC, share)) for name, share in LAG_SHARES},
            moments=tuple(self._progress.moments),
            core=core,
            tier_hit_tokens=tier_hits,
            predictions={key: counter_total(metrics, name) for key, name in PREDICTION_METRICS.items()},
        )

    async def _replay(self) -> list[Outcome]:
        replayer = Replayer(
            self._session,
            self._stack.router_url,
            await find_model(self._session, self._stack.router_url),
            speed=self._workload.speed,
            on_outcome=self._progress.outcomes.append,
        )
        if not self._leg.kill:
            return await replayer.run(self._workload.prompts)
        pause = Pause(int(RESTARTED_BY * self._progress.total), self._restarted)
        return await replayer.run(self._workload.prompts, pause)

    async def _restart_one(self, watcher: Watcher) -> None:
        try:
            await self._kill_and_start(watcher)
        finally:
            self._restarted.set()

    async def _kill_and_start(self, watcher: Watcher) -> None:
        pod = random.Random(self._settings.seed).choice(self._stack.engines)
        wanted = int(RESTART_AT * self._progress.total)
        await _until(lambda: len(self._progress.outcomes) >= wanted and watcher.row(pod.name) is not None)
        row = watcher.row(pod.name)
        if row is None:
            return
        self._dead.append(pod.name)
        restart = Restart(pod.name, (row.epoch, row.incarnation), row.blocks, watcher.now_s)
        self._stack.supervisor[pod.name].signal(signal.SIGKILL)
        watcher.restart = restart
        self._note(f"{pod.name} killed with {row.blocks} blocks")
        await asyncio.sleep(DOWN_S)
        await _until(lambda: restart.detected_s is not None, DETECT_DEADLINE_S)
        restart.started_s = watcher.now_s
        await self._stack.restart_engine(pod)
        self._dead.remove(pod.name)
        self._note(f"{pod.name} started again")
        await _until(lambda: restart.live_s is not None, LIVE_DEADLINE_S)

    async def _guard(self) -> None:
        """End the phase when a process dies unexpectedly."""
        while True:
            await asyncio.sleep(0.2)
            self._stack.supervisor.check(self._dead)

    def _note_state(self, name: str, before: str, after: str) -> None:
        if before:
            self._note(f"index: {name} {before} -> {after}")

    def _note(self, text: str) -> None:
        watcher = self._progress.watcher
        self._progress.moments.append((watcher.now_s if watcher is not None else 0.0, text))


async def _until(condition: Callable[[], bool], deadline_s: float | None = None) -> bool:
    """Poll until the condition holds, and return False if the deadline passes first."""
    loop = asyncio.get_running_loop()
    end = None if deadline_s is None else loop.time() + deadline_s
    while not condition():
        if end is not None and loop.time() > end:
            return False
        await asyncio.sleep(0.02)
    return True


@contextlib.asynccontextmanager
async def _in_background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run `work` during the block. If it fails, the block ends with its error; when the block ends, it is cancelled."""
    owner = asyncio.current_task()
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: owner.cancel() if owner and not done.cancelled() and done.exception() else None)
    try:
        yield
    except asyncio.CancelledError:
        failure = task.exception() if task.done() and not task.cancelled() else None
        if owner is None or failure is None:
            raise
        owner.uncancel()
        raise failure from None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
