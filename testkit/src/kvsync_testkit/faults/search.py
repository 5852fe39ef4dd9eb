"""Plays many seeds and shrinks those that fail: a failure is useful only if it can be read."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from kvsync_testkit.faults.plan import Schedule, expand_schedule
from kvsync_testkit.faults.simulation import Outcome, run_schedule
from kvsync_testkit.faults.subject import REAL, Subject


def shrink(schedule: Schedule, subject: Subject = REAL) -> Outcome:
    """Return the outcome of a failing schedule without everything that at least one of its violations does not need."""
    wanted = {one.invariant for one in run_schedule(schedule, subject).violations}

    def fails(candidate: Schedule) -> bool:
        found = {one.invariant for one in run_schedule(candidate, subject).violations}
        return bool(wanted & found)

    changed = True
    while changed:
        changed = False
        for candidate in _smaller(schedule):
            if fails(candidate):
                schedule, changed = candidate, True
                break
    return run_schedule(schedule, subject)


def _smaller(schedule: Schedule) -> Iterable[Schedule]:
    for fault in schedule.faults:
        yield schedule.without(fault)
    plain = schedule.workload
    for name, value in (("reports", False), ("host_tier", False), ("lost_batches", 0.0), ("poisoned_batches", 0.0),
                        ("clears", 0.0)):  # fmt: skip
        if getattr(plain, name) != value:
            yield replace(schedule, workload=replace(plain, **{name: value}))  # type: ignore[arg-type]
    if schedule.join_after:
        yield replace(schedule, join_after=0)
    if schedule.small_buffers:
        yield replace(schedule, small_buffers=False)
    if schedule.busy_s:
        yield replace(schedule, busy_s=0.0)
    if schedule.monitor_lag_s:
        yield replace(schedule, monitor_lag_s=0.0)


def find_failures(
    seeds: Iterable[int],
    subject: Subject = REAL,
    *,
    at_most: int = 3,
    progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Play the seeds; return up to `at_most` failures, shrunk."""
    failures: list[Outcome] = []
    for seed in seeds:
        schedule = expand_schedule(seed)
        if run_schedule(schedule, subject).failed:
            failures.append(shrink(schedule, subject))
            if len(failures) >= at_most:
                break
        if progress is not None:
            progress(seed)
    return failures
