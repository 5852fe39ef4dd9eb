"""The registry of the gate's jobs, and the settings that all jobs share."""

import os
from collections.abc import Callable

CORE = os.environ.get("KVSYNC_BENCH_CORE", "auto")
"""The kind of index core under test, which is the same on both sides of a comparison."""
SCALE = 10 if CORE == "python" else 1
"""The pure-Python core gets a tenth of the work."""

Work = Callable[[], int]
Prepare = Callable[[], Callable[[], Work]]
JOBS: dict[str, tuple[str, Prepare]] = {}


def job(name: str, unit: str) -> Callable[[Prepare], Prepare]:
    """Register a job: a function that prepares it once and returns a factory, which is called before each repeat.

    Only the work that the factory returns is measured. It returns the number of units it did. `unit` says what is
    measured: CPU time (`s/…`) or growth of memory (`B/…`).
    """

    def register(prepare: Prepare) -> Prepare:
        JOBS[name] = (unit, prepare)
        return prepare

    return register
