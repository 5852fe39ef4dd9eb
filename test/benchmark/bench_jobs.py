"""The jobs the gate compares: small, seeded, each a fraction of a second.

    python bench_jobs.py JOB      prints {"job", "cost", "unit"}: the least cost of some repeats, by unit of work

The gate runs the *same* job file with the interpreter of either side, so that base and head do the same work with their
own packages, on the same kind of index core (`KVSYNC_BENCH_CORE`, python or native). A process is one sample: layout
and hash seeds of a process are part of the noise. The cost is CPU time of all threads, not wall time, which on a shared
machine measures the neighbours; or bytes of memory. A planted slowdown (`KVSYNC_BENCH_PLANT=0.2`) spends that share of
each repeat again, and is how the gate itself is tested.
"""

import gc
import json
import os
import sys
import time

import bench_jobs_engine
import bench_jobs_index
from bench_jobs_index import resident_bytes
from bench_registry import JOBS, Work

__all__ = ["JOBS", "bench_jobs_engine", "bench_jobs_index", "measure"]

LEAST_REPEATS, MOST_REPEATS, ENOUGH_S = 3, 40, 0.15


def cost_of(work: Work, unit: str, plant: float) -> float:
    """CPU seconds or resident bytes by unit of work, with the planted share on top."""
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
    """Prepare, repeat for long enough, and give the least cost of a unit of work. Memory is measured once."""
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
        os.dup2(2, 1)  # what is logged meanwhile is no answer
        os.write(answer, json.dumps(measure(sys.argv[1])).encode())
        os._exit(0)  # sockets and threads of a job need no orderly end
