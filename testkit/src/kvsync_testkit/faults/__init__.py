"""Faults: at chosen batches of an event pipeline, and whole schedules of them for the index.

`FaultScript` loses, duplicates, reorders, delays or corrupts the batches that a test names, or restarts their
publisher; `kvsync_testkit.events` applies it on either bus. Any `FaultHook` can take its place.

Schedules run in virtual time on model engines, a faulty path, the real follower and a real core. A seed is expanded
into a schedule (`expand_schedule`), which is played (`run_schedule`) and judged with `kvsync_testkit.checks`.
`find_failures` plays many seeds and makes each failure as small as it can. `mutants` holds the planted bugs that the
judging must find.

    python -m kvsync_testkit.faults --seeds 0-9999 --core both
"""

from kvsync_testkit.events.hooks import Delivery, FaultHook, NoFaults
from kvsync_testkit.events.script import FaultScript
from kvsync_testkit.faults.engine import ModelProcess, Published, Workload
from kvsync_testkit.faults.plan import Fault, Schedule, expand_schedule
from kvsync_testkit.faults.search import find_failures, shrink
from kvsync_testkit.faults.simulation import Outcome, Simulation, run_schedule
from kvsync_testkit.faults.subject import REAL, Subject, build_core, build_native_core

__all__ = [
    "REAL",
    "Delivery",
    "Fault",
    "FaultHook",
    "FaultScript",
    "ModelProcess",
    "NoFaults",
    "Outcome",
    "Published",
    "Schedule",
    "Simulation",
    "Subject",
    "Workload",
    "build_core",
    "build_native_core",
    "expand_schedule",
    "find_failures",
    "run_schedule",
    "shrink",
]
