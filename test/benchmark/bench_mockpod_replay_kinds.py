"""Measures the offline replay of the slower kinds of engine, and its memory over the whole trace.

    python bench_mockpod_replay_kinds.py [--requests 300] [--rounds 3] [--json FILE] [--no-memory]

`bench_mockpod_replay.py` measures workers and policies. This script measures preemption in a small pool, asynchronous
scheduling and tiers, which advance step by step and block by block. Times are CPU time, the minimum of some rounds. A
loop of a million stores into a dict runs between the rounds, so that `ratio` (replay time / loop time) is comparable
between machines. Memory is the peak of a separate process minus what it held before the replay; with one worker, most
requests wait.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvsync.replay.routers import KvRouter, PolicyRouter
from kvsync_mockpod.engine import EngineConfig, TierConfig
from kvsync_mockpod.offline import ReplayConfig, ReplayResult, replay
from kvsync_router.decisions.policies import KvAware
from kvsync_workload.trace import TraceRequest, read_trace

TRACE = Path(__file__).resolve().parents[2] / "examples" / "traces" / "mooncake_conversation.jsonl"
BLOCKS, SMALL_POOL = 16_384, 8_500
"""Blocks per engine; 8,500 is slightly more than the longest request needs."""
TIERS = {"host_blocks": 20_000, "disk_blocks": 40_000, "block_bytes": 16 * 131_072}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "small pool": {"blocks": SMALL_POOL, "scheduler_reserve_full_isl": False},
    "asynchronous": {"asynchronous": True},
    "tiers": {"tiers": True},
}


def run(trace: Sequence[TraceRequest], workers: int, policy: str, kind: str) -> tuple[float, ReplayResult]:
    """Return the CPU seconds of one replay and its result."""
    values = dict(KINDS[kind])
    tiers = TierConfig.build(**TIERS) if values.pop("tiers", False) else None
    asynchronous = values.pop("asynchronous", False)
    engine = EngineConfig(
        num_gpu_blocks=values.pop("blocks", BLOCKS), max_model_len=131_072, max_num_batched_tokens=8192, **values
    )
    router = KvRouter(KvAware(), workers, engine.block_size) if policy == "kv" else PolicyRouter(policy, 0, workers)
    config = ReplayConfig(workers=workers, engine=engine, tiers=tiers, asynchronous=asynchronous)
    begun = time.process_time()
    result = replay(trace, config, router)
    return time.process_time() - begun, result


def reference_s() -> float:
    """Return the CPU seconds of a million stores into a dict."""
    begun = time.process_time()
    assert len({number: number for number in range(1_000_000)}) == 1_000_000
    return time.process_time() - begun


def measure(count: int, workers: int, policy: str, kind: str, rounds: int) -> dict[str, Any]:
    """Return one row of the table."""
    trace = read_trace(TRACE, count).requests
    times, loops = [], []
    for _ in range(rounds):
        loops.append(reference_s())
        took, result = run(trace, workers, policy, kind)
        times.append(took)
    best = min(times)
    return {
        "kind": kind,
        "policy": policy,
        "workers": workers,
        "requests": count,
        "cpu_s": round(best, 3),
        "per_cpu_s": round(count / best),
        "ratio": round(best / min(loops), 2),
        "steps": result.steps,
        "preemptions": sum(worker.preemptions for worker in result.workers),
    }


def peak_mib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_here(count: int, workers: int) -> None:
    """Print what one replay adds to the peak memory of this process."""
    trace = read_trace(TRACE, count).requests
    before = peak_mib()
    run(trace, workers, "round_robin", "plain")
    print(json.dumps({"requests": count, "workers": workers, "mib": round(peak_mib() - before, 1)}))


def memory(count: int, workers: int) -> dict[str, Any]:
    """Run `memory_here` in a process of its own and return its result."""
    command = [sys.executable, __file__, "--memory-of", str(count), str(workers)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table of rows with equal keys."""
    names = list(rows[0])
    cells = [names, *([f"{row[name]}" for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)), flush=True)
    print()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--memory-of", type=int, nargs=2, metavar=("REQUESTS", "WORKERS"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.memory_of:
        memory_here(*options.memory_of)
        return
    count, rounds = options.requests, options.rounds
    rows = [
        measure(count, workers, policy, kind, rounds)
        for workers, policy in ((1, "round_robin"), (4, "kv"))
        for kind in KINDS
    ]
    show(rows)
    sizes = [] if options.no_memory else [memory(n, w) for w in (1, 16) for n in (2000, 6000, 12_031)]
    if sizes:
        show(sizes)
    if options.json:
        options.json.write_text(json.dumps({"kinds": rows, "memory": sizes}, indent=1) + "\n")


if __name__ == "__main__":
    main()
