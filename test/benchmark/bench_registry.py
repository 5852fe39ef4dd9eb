"""The register of the gate's jobs, and what all of them need to know of the run they are in."""

import os
from collections.abc import Callable

CORE = os.environ.get("KVSYNC_BENCH_CORE", "auto")
"""The kind of index core under test: both sides of a comparison have the same."""
SCALE = 10 if CORE == "python" else 1
"""The pure-Python core gets a tenth of the work."""

Work = Callable[[], int]
Prepare = Callable[[], Callable[[], Work]]
JOBS: dict[str, tuple[str, Prepare]] = {}


def job(name: str, unit: str) -> Callable[[Prepare], Prepare]:
    """Register a job: a function that prepares once and returns what makes one repeat's work (not timed).

    The work returns the units it did. Its unit says what is counted: `s/...` CPU time, `B/...` growth of memory.
    """

    def register(prepare: Prepare) -> Prepare:
        JOBS[name] = (unit, prepare)
        return prepare

    return register
