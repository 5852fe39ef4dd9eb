"""Runs one of the small, seeded jobs that the gate compares.

    python bench_jobs.py JOB      prints {"job", "cost", "unit"}: the minimum cost per unit of work over some repeats

The gate runs the *same* job file with the interpreters of both sides, so that base and head do the same work with their
own packages and the same kind of index core (`KVSYNC_BENCH_CORE`, python or native). Job files therefore import only
what an older base has too, and nothing from the test kit. Each process is one sample, since the memory layout and hash
seed of a process are part of the noise. The cost is the CPU time of all threads or bytes of memory; wall time would
include the effect of other processes. A planted slowdown (`KVSYNC_BENCH_PLANT=0.2`) repeats that share of the work, and
is how the gate itself is tested.
"""

import gc
import json
import os
import sys
import time

import bench_jobs_engine  # noqa: F401  (registers its jobs)
from bench_jobs_index import resident_bytes
from bench_registry import JOBS, Work

LEAST_REPEATS, MOST_REPEATS, ENOUGH_S = 3, 40, 0.15


def cost_of(work: Work, unit: str, plant: float) -> float:
    """Return CPU seconds or resident bytes per unit of work, including the planted share."""
    if unit.startswith("B/"):
        gc.collect()
        before = resident_bytes()
        units = work()
        gc.collect()
        ballast = bytearray(b"x") * int(plant * (resident_bytes() - before))
        grown = resident_bytes() - before
        del ballast
        return grown / units
    started = time.process_time()
    units = work()
    spent = time.process_time() - started
    while time.process_time() < started + spent * (1 + plant):
        pass
    return (time.process_time() - started) / units


def measure(name: str) -> dict[str, object]:
    """Prepare a job, repeat it, and return the minimum cost per unit of work. Memory is measured once."""
    unit, prepare = JOBS[name]
    plant = float(os.environ.get("KVSYNC_BENCH_PLANT", "0"))
    repeat = prepare()
    costs: list[float] = []
    until = time.process_time() + ENOUGH_S
    while len(costs) < LEAST_REPEATS or (time.process_time() < until and len(costs) < MOST_REPEATS):
        costs.append(cost_of(repeat(), unit, plant))
        if unit.startswith("B/"):
            break
    return {"job": name, "cost": min(costs), "unit": unit}


if __name__ == "__main__":
    if sys.argv[1:] == ["--core"]:
        from kvsync_indexer.core import make_core

        print(json.dumps({"core": make_core("auto").name}))
    elif len(sys.argv) != 2 or sys.argv[1] not in JOBS:
        sys.exit(f"JOB: {' '.join(sys.argv[1:]) or 'missing'}; one of {', '.join(JOBS)}")
    else:
        answer = os.dup(1)
        os.dup2(2, 1)  # log output must not mix with the answer
        os.write(answer, json.dumps(measure(sys.argv[1])).encode())
        os._exit(0)  # sockets and threads of a job need no orderly shutdown
