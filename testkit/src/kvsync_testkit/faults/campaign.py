"""Many schedules, played in several processes, and the sum of what was done and found.

A schedule depends on its seed alone, so the order in which processes play them changes nothing but the time.
"""

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Final, Literal

from kvsync_testkit.faults.plan import expand_schedule
from kvsync_testkit.faults.search import shrink
from kvsync_testkit.faults.simulation import run_schedule
from kvsync_testkit.faults.subject import REAL, build_core, build_native_core

CoreName = Literal["python", "native"]
CORES: Final = {"python": build_core, "native": build_native_core}
PART: Final = 25
"""Seeds per task: few enough that progress shows, and enough that handing tasks over costs nothing."""


@dataclass(slots=True)
class Tally:
    """What a campaign played and found."""

    schedules: int = 0
    batches: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(seed, text of the shrunk schedule and of what it broke)."""

    def add(self, other: "Tally") -> None:
        """Add another part."""
        self.schedules += other.schedules
        self.batches += other.batches
        self.faults.update(other.faults)
        self.failures.extend(other.failures)


def play_part(seeds: Sequence[int], core: CoreName, at_most: int) -> Tally:
    """Play seeds in this process and shrink the failures; stop after `at_most` of them."""
    tally, subject = Tally(), REAL.on(CORES[core])
    for seed in seeds:
        schedule = expand_schedule(seed)
        outcome = run_schedule(schedule, subject)
        tally.schedules += 1
        tally.batches += outcome.batches
        tally.faults.update(fault.kind for fault in schedule.faults)
        if outcome.failed:
            tally.failures.append((seed, str(shrink(schedule, subject))))
            if len(tally.failures) >= at_most:
                break
    return tally


def play_campaign(
    seeds: range, core: CoreName, jobs: int, at_most: int, progress: Callable[[Tally], None] = lambda _: None
) -> Tally:
    """Play `seeds` in `jobs` processes; after `at_most` failures no further part begins."""
    total = Tally()
    parts = [seeds[first : first + PART] for first in range(0, len(seeds), PART)]
    if jobs == 1:
        for part in parts:
            total.add(play_part(part, core, at_most))
            progress(total)
            if len(total.failures) >= at_most:
                break
        return total
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        pending = {pool.submit(play_part, part, core, at_most) for part in parts}
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            for task in done:
                total.add(task.result())
            progress(total)
            if len(total.failures) >= at_most:
                pool.shutdown(cancel_futures=True)
                for task in pending:
                    if not task.cancelled():
                        total.add(task.result())
                break
    total.failures.sort()
    return total


class ProgressLine:
    """A line on standard error: overwritten on a terminal, repeated for every twentieth of the work in a log."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._started = time.monotonic()
        self._told = 0
        self._over = sys.stderr.isatty()

    def __call__(self, tally: Tally) -> None:
        """Write the progress, if it has changed enough."""
        step = tally.schedules * 20 // max(1, self._total)
        if not self._over and step == self._told:
            return
        self._told = step
        spent = time.monotonic() - self._started
        left = spent / max(1, tally.schedules) * (self._total - tally.schedules)
        line = f"{tally.schedules:,} of {self._total:,} schedules, {len(tally.failures)} failures, {left:.0f} s left"
        sys.stderr.write(f"\r{line:<79}" if self._over else f"{line}\n")
        if self._over and tally.schedules == self._total:
            sys.stderr.write("\n")
        sys.stderr.flush()
