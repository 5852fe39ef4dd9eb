"""Runs many independent, deterministic tasks: in this process, in a pool of processes, or on a Ray cluster.

A task is a value, and `work(shared, task)` turns it into a result; `shared` (a trace, for example) is sent to every
worker once. The results are those of a plain loop, in the order of the tasks, wherever they were computed: a task that
was lost with its worker is run again.
"""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

from kvsync_workload.errors import CampaignError

MAX_RETRIES = 3
"""How often a task is run again that was lost with its worker."""

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")
OnDone = Callable[[int], None]
"""Called after each task with the number of tasks that are done."""


class Executor(Protocol):
    """Where tasks run."""

    def describe(self) -> str:
        """Where, in words, for a progress line."""
        ...

    def run(
        self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task], on_done: OnDone
    ) -> list[Result]:
        """The results in the order of the tasks.

        `work` must be a function of a module. An exception of a task ends the campaign and is raised here. Raises
        CampaignError if a task is lost more than `MAX_RETRIES` times.
        """
        ...


class InProcess:
    """One task after the other, here."""

    def describe(self) -> str:
        """Where."""
        return "in this process"

    def run(
        self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task], on_done: OnDone
    ) -> list[Result]:
        """The results in the order of the tasks."""
        results = []
        for task in tasks:
            results.append(work(shared, task))
            on_done(len(results))
        return results


class Processes:
    """A pool of processes on this machine."""

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs or os.cpu_count() or 1

    def describe(self) -> str:
        """Where."""
        return f"in {self.jobs} processes"

    def run(
        self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task], on_done: OnDone
    ) -> list[Result]:
        """The results in the order of the tasks."""
        results: dict[int, Result] = {}
        for _ in range(MAX_RETRIES + 1):
            missing = [number for number in range(len(tasks)) if number not in results]
            if not missing:
                break
            self._round(work, shared, tasks, missing, results, on_done)
        if len(results) < len(tasks):
            lost = len(tasks) - len(results)
            raise CampaignError(f"{lost} tasks were lost {MAX_RETRIES + 1} times with their workers")
        return [results[number] for number in range(len(tasks))]

    def _round(
        self,
        work: Callable[[Shared, Task], Result],
        shared: Shared,
        tasks: Sequence[Task],
        missing: Sequence[int],
        results: dict[int, Result],
        on_done: OnDone,
    ) -> None:
        """Run what is missing; what is lost with a worker stays missing."""
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(
            min(self.jobs, len(missing)), mp_context=context, initializer=_set_shared, initargs=(shared,)
        )
        try:
            futures: dict[Future[Result], int] = {
                pool.submit(_work_with_shared, work, tasks[number]): number for number in missing
            }
            for future in as_completed(futures):
                try:
                    results[futures[future]] = future.result()
                except BrokenProcessPool:
                    continue
                on_done(len(results))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_shared: Any = None


def _set_shared(shared: object) -> None:
    global _shared  # noqa: PLW0603 - one value per worker process, set once
    _shared = shared


def _work_with_shared(work: Callable[[Any, Task], Result], task: Task) -> Result:
    return work(_shared, task)


class Ray:
    """The tasks of a Ray cluster whose nodes have this package installed. Needs the package `ray`."""

    def __init__(self, address: str) -> None:
        """`address` is Ray's: `auto`, `HOST:6379` or `ray://HOST:10001`. Raises CampaignError."""
        try:
            import ray
        except ImportError:
            raise CampaignError("Ray is not installed: install the extra kvsync[ray]") from None
        self._ray: Any = ray
        try:
            ray.init(address=address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise CampaignError(f"Ray at {address}: {' '.join(str(error).split())}") from None
        self._address = address

    def describe(self) -> str:
        """Where."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return (
            f"on Ray at {self._address} ({len(nodes)} nodes, {int(self._ray.cluster_resources().get('CPU', 0))} CPUs)"
        )

    def run(
        self, work: Callable[[Shared, Task], Result], shared: Shared, tasks: Sequence[Task], on_done: OnDone
    ) -> list[Result]:
        """The results in the order of the tasks."""
        ray = self._ray
        remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(work)
        kept = ray.put(shared)
        pending = {remote.remote(kept, task): number for number, task in enumerate(tasks)}
        results: dict[int, Result] = {}
        try:
            while pending:
                ready, _ = ray.wait(list(pending), num_returns=1)
                for one in ready:
                    results[pending.pop(one)] = ray.get(one)
                    on_done(len(results))
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else CampaignError(str(error)) from None
        except ray.exceptions.RayError as error:
            raise CampaignError(f"a task was lost: {' '.join(str(error).split())}") from None
        finally:
            for one in pending:
                ray.cancel(one, force=True)
        return [results[number] for number in range(len(tasks))]
