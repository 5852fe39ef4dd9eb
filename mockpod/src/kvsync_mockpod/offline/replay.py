"""The replay itself: arrivals, routing and engines in one order of time.

Between two arrivals the engines are independent of each other, so each one is advanced to the next arrival on its own.
They are advanced step by step, the earliest first, only where an arrival waits for the end of another request (a limit
on requests in flight, the turns of a session) and where engines share a disk. Ties are broken by worker and by request
number, never by chance.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from kvsync_mockpod.engine import Engine, EngineConfig, EngineConfigError, Request, TierConfig
from kvsync_mockpod.engine.latency import make_latency
from kvsync_mockpod.offline.model import TraceExecutor, TraceIdentity, make_request
from kvsync_mockpod.offline.result import ReplayResult, RequestRecord
from kvsync_mockpod.offline.routing import Router, WorkerLoad
from kvsync_mockpod.offline.turns import Turns
from kvsync_mockpod.offline.worker import Worker
from kvsync_workload.arrivals import Arrivals, arrival_times
from kvsync_workload.ideal import UnlimitedCache
from kvsync_workload.prefixes import PrefixTree
from kvsync_workload.trace import TraceRequest

_at_and_worker = itemgetter(0, 1)


def _never() -> bool:
    return False


def _default_engine() -> EngineConfig:
    return EngineConfig(num_gpu_blocks=16384, max_model_len=131072, max_num_batched_tokens=8192)


@dataclass(frozen=True, slots=True)
class ReplayConfig:
    """Engines and arrivals. Engines schedule synchronously unless `asynchronous`, and keep neither logs nor tokens."""

    workers: int = 1
    engine: EngineConfig = field(default_factory=_default_engine)
    latency: str = "quadratic"
    """A profile name or a formula as JSON (`kvsync_mockpod.engine.latency`)."""
    jitter: float = 0.0
    arrivals: Arrivals = field(default_factory=Arrivals)
    tiers: TierConfig | None = None
    shared_disk: bool = False
    """All workers share one disk behind one link."""
    asynchronous: bool = False
    seed: int = 0


def replay(requests: Sequence[TraceRequest], config: ReplayConfig, router: Router) -> ReplayResult:
    """Play the requests, which are in order of arrival, through the engines in virtual time.

    Raises EngineConfigError for an impossible configuration. A prompt that is too long is recorded as refused.
    """
    if config.workers < 1:
        raise EngineConfigError(f"workers {config.workers}: must be at least 1")
    if not requests:
        raise EngineConfigError("there is no request to replay")
    size = config.engine.block_size
    workers = _make_workers(config, router)
    run = _Run(workers, router)
    tree, ideal, ideal_hit_tokens = PrefixTree(), UnlimitedCache(size), 0
    in_turns = config.tiers is not None and config.shared_disk
    for number, due in run.arrivals(requests, config):
        trace, now = requests[number], run.admit_at(due, config.arrivals.max_in_flight)
        path = tree.path(trace.hash_ids)
        ideal_hit_tokens += ideal.serve(path, trace.input_tokens)
        request = make_request(number, trace, path, now, size)
        record = RequestRecord(number, 0, due, now, trace.input_tokens)
        run.send(request, record, now, in_turns=in_turns)
    run.finish(in_turns=in_turns)
    gaps: dict[int, int] = {}
    for worker in workers:
        for gap, n in worker.gaps_us.items():
            gaps[gap] = gaps.get(gap, 0) + n
    return ReplayResult(
        records=run.records,
        workers=[w.record() for w in workers],
        gaps_us=gaps,
        ideal_hit_tokens=ideal_hit_tokens,
        duration_s=max((r.ended_s or 0.0 for r in run.records), default=0.0),
        steps=sum(w.steps for w in workers),
        settings=_settings(config),
    )


class _Run:
    """The state of one replay."""

    def __init__(self, workers: list[Worker], router: Router) -> None:
        self.workers = workers
        self.router = router
        self.records: list[RequestRecord] = []
        self._now = 0.0
        self._watching = router.wants_events or router.wants_runs
        self._aware = router.wants_loads or self._watching
        self._blank = [WorkerLoad(0, 0)] * len(workers)

    def arrivals(self, requests: Sequence[TraceRequest], config: ReplayConfig) -> Iterator[tuple[int, float]]:
        """The numbers of the requests in the order in which they are due, with the times at which they are."""
        if not any(request.waits_for for request in requests):
            yield from enumerate(arrival_times(requests, config.arrivals, config.seed))
            return
        turns = Turns(requests, config.arrivals, config.seed)
        for worker in self.workers:
            worker.on_end = turns.ended
        while turns.left:
            due = turns.next_due
            self._turns(due, stop=lambda due=due: turns.next_due < due)  # type: ignore[misc]
            if turns.next_due < due:
                continue  # a request has ended whose successor is due earlier
            yield turns.pop()

    def admit_at(self, due: float, cap: int | None) -> float:
        """When the next request may be sent: when it is due, or as soon as the limit on requests in flight allows."""
        now = max(due, self._now)
        if cap is None:
            return now
        workers = self.workers
        self._turns(now)
        while sum(w.open_at(now) for w in workers) >= cap:
            ends = [e.ended_s for w in workers for e in w.ended if e.ended_s is not None and e.ended_s > now]
            start = min(w.next_start() for w in workers)
            if ends and min(ends) <= start:
                now = min(ends)
                continue
            worker = min(workers, key=Worker.next_start)
            worker.advance(float("inf"), max_steps=1)
        self._now = now
        return now

    def send(self, request: Request, record: RequestRecord, now: float, *, in_turns: bool) -> None:
        """Route one request and submit it to the chosen worker."""
        workers = self.workers
        self._now = now
        if in_turns:
            self._turns(now)
        if self._aware:
            for worker in workers:
                worker.advance(now)
            self._observe(now)
            loads = [WorkerLoad(w.in_flight, w.tokens_in_flight) for w in workers]
        else:
            loads = self._blank
        record.worker = self.router.choose(request, now, loads)
        worker = workers[record.worker]
        worker.advance(now)
        worker.settle(now)
        self.records.append(record)
        worker.submit(request, record, now)

    def finish(self, *, in_turns: bool) -> None:
        """Advance every worker until it has no work left."""
        if in_turns:
            self._turns(float("inf"))
        for worker in self.workers:
            worker.advance(float("inf"))
            worker.settle(float("inf"))
        self._observe(float("inf"))

    def _observe(self, now: float) -> None:
        """Pass the router what was published up to `now`, ordered by time, then by worker."""
        for worker in self.workers:
            worker.settle(now)
        if not self._watching:
            return
        due: list[tuple[float, int, list[Any]]] = []
        for i, worker in enumerate(self.workers):
            published = worker.published
            while published and published[0][0] <= now:
                at, events = published.popleft()
                due.append((at, i, events))
        due.sort(key=_at_and_worker)
        for at, i, events in due:
            self.router.observe(i, at, events)

    def _turns(self, until: float, stop: Callable[[], bool] = _never) -> None:
        """Do all steps that begin before `until` one by one, the earliest first, until `stop` says so."""
        heap = [(w.next_start(), i) for i, w in enumerate(self.workers)]
        heapq.heapify(heap)
        while heap and heap[0][0] < until and not stop():
            _start, i = heapq.heappop(heap)
            worker = self.workers[i]
            actual = worker.next_start()
            if actual <= (heap[0][0] if heap else actual) and actual < until:
                worker.advance(until, max_steps=1)
                actual = worker.next_start()
            if actual < until:
                heapq.heappush(heap, (actual, i))


def _make_workers(config: ReplayConfig, router: Router) -> list[Worker]:
    tiers = config.tiers
    engine = config.engine.model_copy(
        update={"async_scheduling": config.asynchronous, "log_entries": 0, "keep_tokens": tiers is not None}
    )
    identity = TraceIdentity(engine.block_size)
    disk = tiers.make_disk_link() if tiers is not None and config.shared_disk else None
    workers = []
    for i in range(config.workers):
        latency = make_latency(config.latency, jitter=config.jitter, seed=config.seed * 1_000_003 + i)
        workers.append(
            Worker(
                Engine(
                    engine,
                    TraceExecutor(),
                    latency,
                    tiers=tiers,
                    disk_link=disk,
                    identity=identity,
                    publish=router.wants_events or router.wants_runs,
                    runs=router.wants_runs,
                )
            )
        )
    return workers


def _settings(config: ReplayConfig) -> dict[str, object]:
    engine = config.engine
    return {
        "workers": config.workers,
        "seed": config.seed,
        "latency": config.latency,
        "jitter": config.jitter,
        "arrivals": config.arrivals.kind,
        "block_size": engine.block_size,
        "num_gpu_blocks": engine.num_gpu_blocks,
        "max_num_seqs": engine.max_num_seqs,
        "max_num_batched_tokens": engine.max_num_batched_tokens,
        "max_model_len": engine.max_model_len,
        "asynchronous": config.asynchronous,
    }
