"""Plays many seeds and makes what fails small: a failure is only useful when it can be read."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from kvsync_testkit.faults.plan import Schedule, expand_schedule
from kvsync_testkit.faults.simulation import (
    CoreFactory,
    MachineFactory,
    Outcome,
    build_core,
    build_machine,
    run_schedule,
)


def shrink(schedule: Schedule, machine: MachineFactory = build_machine, core: CoreFactory = build_core) -> Outcome:
    """A failing schedule without everything that the failure does not need; fails the same invariants or more."""
    wanted = {one.invariant for one in run_schedule(schedule, machine, core).violations}

    def fails(candidate: Schedule) -> bool:
        found = {one.invariant for one in run_schedule(candidate, machine, core).violations}
        return bool(wanted & found)

    changed = True
    while changed:
        changed = False
        for candidate in _smaller(schedule):
            if fails(candidate):
                schedule, changed = candidate, True
                break
    return run_schedule(schedule, machine, core)


def _smaller(schedule: Schedule) -> Iterable[Schedule]:
    for fault in schedule.faults:
        yield schedule.without(fault)
    plain = schedule.workload
    for name, value in (("reports", False), ("host_tier", False), ("lost_batches", 0.0), ("clears", 0.0)):
        if getattr(plain, name) != value:
            yield replace(schedule, workload=replace(plain, **{name: value}))  # type: ignore[arg-type]
    if schedule.join_after:
        yield replace(schedule, join_after=0)
    if schedule.small_buffers:
        yield replace(schedule, small_buffers=False)


def find_failures(
    seeds: Iterable[int],
    machine: MachineFactory = build_machine,
    core: CoreFactory = build_core,
    *,
    at_most: int = 3,
    progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Play the seeds; return up to `at_most` failures, shrunk."""
    failures: list[Outcome] = []
    for seed in seeds:
        schedule = expand_schedule(seed)
        if run_schedule(schedule, machine, core).failed:
            failures.append(shrink(schedule, machine, core))
            if len(failures) >= at_most:
                break
        if progress is not None:
            progress(seed)
    return failures
