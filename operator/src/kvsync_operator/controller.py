"""One daemon a custom resource: it sleeps until woken, or until its slow resync, and then makes one pass.

Level, not edge: waking only says *look*, so wakes that come during a pass or close together become one
more pass. A pass that fails is tried again with growing delays; nothing a pass does ends its daemon.

The daemons are tasks of our own rather than `kopf.daemon`s, because those need a finalizer on every
custom resource, and a finalizer holds up deletion for as long as the operator is away.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from kvsync_operator.cache import Key
from kvsync_operator.errors import OperatorError
from kvsync_operator.metrics import PASS_SECONDS, PASSES

__all__ = ["Backoff", "Controller", "ControllerStats", "Pass"]

log = structlog.get_logger()

_RETRY_S = 1.0
"""Time at least between a pass that failed and the next."""
_SETTLE_S = 0.05
"""Changes that come within this time of the first are seen by one pass."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What a pass is told and what it answers is in `Reconcile`; `enforce` is true for a slow resync."""

    key: Key
    enforce: bool


Reconcile = Callable[[Pass], Awaitable[float | None]]
"""Make one pass; answer after how many seconds to look again (None: at the next resync). May raise."""

Clock = Callable[[], float]


@dataclass(slots=True)
class Backoff:
    """Delays after failures in a row: 1 s doubled up to a minute, with a fifth of jitter."""

    rng: random.Random
    failures: int = 0

    def next_s(self) -> float:
        """The delay after one more failure."""
        self.failures += 1
        return float(min(60.0, 2.0 ** (self.failures - 1)) * self.rng.uniform(0.8, 1.2))


@dataclass(slots=True)
class _Daemon:
    """One custom resource's task and where it stands."""

    task: asyncio.Task[None]
    wake: asyncio.Event
    backoff: Backoff
    woken_at: float | None = None
    started_at: float | None = None
    resync_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ControllerStats:
    """A look at the daemons: how many, how many at work, and the longest wait or pass in seconds."""

    daemons: int
    running: int
    longest_s: float


@dataclass(slots=True)
class Controller:
    """The daemons.

    Args:
        reconcile: makes one pass.
        resync_s: the slow resync; each daemon's share is spread by a tenth.
        rng: for jitter.
        clock: monotonic seconds.
    """

    reconcile: Reconcile
    resync_s: float
    rng: random.Random
    clock: Clock
    _daemons: dict[Key, _Daemon] = field(default_factory=dict)

    def wake(self, key: Key) -> None:
        """Look at `key` soon; its daemon starts when there is none."""
        daemon = self._daemons.get(key)
        if daemon is None:
            wake = asyncio.Event()
            task = asyncio.create_task(self._live(key), name=f"{key.kind} {key.namespace}/{key.name}")
            daemon = self._daemons[key] = _Daemon(task, wake, Backoff(self.rng))
            daemon.resync_at = self._next_resync()
        if daemon.woken_at is None:
            daemon.woken_at = self.clock()
        daemon.wake.set()

    def forget(self, key: Key) -> None:
        """End the daemon of a resource that is gone."""
        daemon = self._daemons.pop(key, None)
        if daemon is not None:
            daemon.task.cancel()

    async def close(self) -> None:
        """End every daemon and wait for them."""
        tasks = [daemon.task for daemon in self._daemons.values()]
        self._daemons.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stats(self) -> ControllerStats:
        """Where the daemons stand now."""
        now = self.clock()
        running = [daemon for daemon in self._daemons.values() if daemon.started_at is not None]
        since = [daemon.started_at for daemon in running]
        since += [daemon.woken_at for daemon in self._daemons.values() if daemon.started_at is None]
        longest = max((now - moment for moment in since if moment is not None), default=0.0)
        return ControllerStats(len(self._daemons), len(running), longest)

    def _next_resync(self) -> float:
        return self.clock() + self.resync_s * self.rng.uniform(0.9, 1.1)

    async def _live(self, key: Key) -> None:
        daemon = self._daemons[key]
        again_s: float | None = None
        while True:
            await self._sleep(daemon, again_s)
            again_s = await self._pass(key, daemon)

    async def _sleep(self, daemon: _Daemon, again_s: float | None) -> None:
        """Until woken, until the pass asked to look again, or until the resync is due."""
        until_resync = max(0.0, daemon.resync_at - self.clock())
        limit = until_resync if again_s is None else min(again_s, until_resync)
        if daemon.backoff.failures:  # wakes of its own making must not turn a failing pass into a busy loop
            pause = min(_RETRY_S, limit)
            await asyncio.sleep(pause)
            limit -= pause
        try:
            async with asyncio.timeout(limit):
                await daemon.wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(_SETTLE_S)

    async def _pass(self, key: Key, daemon: _Daemon) -> float | None:
        started = self.clock()
        enforce = started >= daemon.resync_at
        daemon.wake.clear()
        daemon.woken_at, daemon.started_at = None, started
        try:
            again_s = await self.reconcile(Pass(key, enforce))
        except OperatorError as error:
            again_s = daemon.backoff.next_s()
            PASSES.labels(key.kind, "error").inc()
            log.warning("pass failed", kind=key.kind, namespace=key.namespace, name=key.name, error=str(error))
        except Exception:
            again_s = daemon.backoff.next_s()
            PASSES.labels(key.kind, "bug").inc()
            log.exception("pass failed unexpectedly", kind=key.kind, namespace=key.namespace, name=key.name)
        else:
            daemon.backoff.failures = 0
            if enforce:
                daemon.resync_at = self._next_resync()
            PASSES.labels(key.kind, "ok").inc()
        finally:
            daemon.started_at = None
            PASS_SECONDS.labels(key.kind).observe(self.clock() - started)
        return again_s
