"""One worker task per custom resource, which reconciles whenever it is woken and at a slow resync interval.

Reconciliation is level-triggered: a wake-up says only that the resource should be looked at, so wake-ups that arrive
during a pass, or in quick succession, lead to a single further pass. A failed pass is retried with growing delays, and
no failure ends the worker.

The workers are plain tasks rather than `kopf.daemon` handlers, because kopf puts a finalizer on every resource that has
a daemon, and a finalizer blocks the deletion of the resource for as long as the operator is not running.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from kvsync_operator.cache import Key
from kvsync_operator.clock import Clock, wait_for_event
from kvsync_operator.errors import OperatorError
from kvsync_operator.metrics import PASS_SECONDS, PASSES

_log = structlog.get_logger()

_RETRY_S = 1.0
"""Shortest time between a failed pass and the next one, in seconds."""
_SETTLE_S = 0.05
"""How long a woken worker waits, in seconds, so that one pass sees all changes of a burst."""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass to make over a custom resource.

    Args:
        key: The resource.
        enforce: Whether to apply every object even if it looks right, which is the case for the slow resync.
    """

    key: Key
    enforce: bool


Reconcile = Callable[[Pass], Awaitable[float | None]]
"""Makes one pass. Returns after how many seconds the next pass is due, None for the next resync; may raise."""


@dataclass(slots=True)
class Backoff:
    """Delays after consecutive failures: 1 s, doubled up to 60 s, with 20 % of jitter."""

    rng: random.Random
    failures: int = 0

    def next_s(self) -> float:
        """Count one more failure and return the delay after it, in seconds."""
        self.failures += 1
        return float(min(60.0, 2.0 ** (self.failures - 1)) * self.rng.uniform(0.8, 1.2))


@dataclass(slots=True)
class _Worker:
    """The task of one custom resource. `woken_at` and `started_at` are None while it is idle."""

    task: asyncio.Task[None]
    wake: asyncio.Event
    backoff: Backoff
    woken_at: float | None = None
    started_at: float | None = None
    resync_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ControllerStats:
    """A snapshot of the workers.

    Args:
        workers: Number of workers, which is the number of custom resources.
        woken: Workers that were woken and have not started their pass.
        running: Workers in the middle of a pass.
        longest_s: The longest time that a pass has been due or running, in seconds.
    """

    workers: int
    woken: int
    running: int
    longest_s: float


@dataclass(slots=True)
class Controller:
    """Starts, wakes and ends the workers.

    Args:
        reconcile: Makes one pass.
        resync_s: Interval of the slow resync in seconds; each interval varies by 10 %, so that workers spread out.
        rng: Source of the jitter.
        clock: Used for every wait.
    """

    reconcile: Reconcile
    resync_s: float
    rng: random.Random
    clock: Clock
    _workers: dict[Key, _Worker] = field(default_factory=dict)

    def wake(self, key: Key) -> None:
        """Request a pass over `key`, and start its worker if there is none."""
        worker = self._workers.get(key)
        if worker is None:
            task = asyncio.create_task(self._run(key), name=f"{key.kind} {key.namespace}/{key.name}")
            worker = self._workers[key] = _Worker(task, asyncio.Event(), Backoff(self.rng))
            worker.resync_at = self._next_resync()
        if worker.woken_at is None:
            worker.woken_at = self.clock.monotonic()
        worker.wake.set()

    def forget(self, key: Key) -> None:
        """End the worker of a resource that no longer exists."""
        worker = self._workers.pop(key, None)
        if worker is not None:
            worker.task.cancel()

    async def close(self) -> None:
        """End every worker and wait until all have ended."""
        tasks = [worker.task for worker in self._workers.values()]
        self._workers.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stats(self) -> ControllerStats:
        """Return the current state of the workers."""
        now = self.clock.monotonic()
        workers = self._workers.values()
        woken = [worker.woken_at for worker in workers if worker.started_at is None and worker.woken_at is not None]
        started = [worker.started_at for worker in workers if worker.started_at is not None]
        longest = max((now - moment for moment in [*woken, *started]), default=0.0)
        return ControllerStats(len(workers), len(woken), len(started), longest)

    def _next_resync(self) -> float:
        return self.clock.monotonic() + self.resync_s * self.rng.uniform(0.9, 1.1)

    async def _run(self, key: Key) -> None:
        worker = self._workers[key]
        again_s: float | None = None
        while True:
            await self._wait(worker, again_s)
            again_s = await self._pass(key, worker)

    async def _wait(self, worker: _Worker, again_s: float | None) -> None:
        """Wait for a wake-up, for the time that the last pass asked for, or for the resync, whichever is first."""
        until_resync = max(0.0, worker.resync_at - self.clock.monotonic())
        limit = until_resync if again_s is None else min(again_s, until_resync)
        if worker.backoff.failures:  # a failing pass wakes itself by what it writes, and must not become a busy loop
            pause = min(_RETRY_S, limit)
            await self.clock.sleep(pause)
            limit -= pause
        if await wait_for_event(self.clock, worker.wake, limit):
            await self.clock.sleep(_SETTLE_S)

    async def _pass(self, key: Key, worker: _Worker) -> float | None:
        started = self.clock.monotonic()
        enforce = started >= worker.resync_at
        worker.wake.clear()
        worker.woken_at, worker.started_at = None, started
        try:
            again_s = await self.reconcile(Pass(key, enforce))
        except OperatorError as error:
            again_s = worker.backoff.next_s()
            PASSES.labels(key.kind, "error").inc()
            _log.warning("pass_failed", kind=key.kind, namespace=key.namespace, name=key.name, error=str(error))
        except Exception:  # noqa: BLE001  (no failure may end the worker)
            again_s = worker.backoff.next_s()
            PASSES.labels(key.kind, "bug").inc()
            _log.exception("pass_crashed", kind=key.kind, namespace=key.namespace, name=key.name)
        else:
            worker.backoff.failures = 0
            if enforce:
                worker.resync_at = self._next_resync()
            PASSES.labels(key.kind, "ok").inc()
        finally:
            worker.started_at = None
            PASS_SECONDS.labels(key.kind).observe(self.clock.monotonic() - started)
        return again_s
