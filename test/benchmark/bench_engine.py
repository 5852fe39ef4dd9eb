"""The mock engine without a server: offline replay by workers and policy, and what the end of a copy costs.

    python bench_engine.py [--core auto] [--requests 2000] [--workers 1 4 16] [--rounds 3]

Prints JSON, CPU time throughout. Replay: the first requests of the conversation trace in 16-token blocks, as
`kvsync replay --offline` plays them. Copies: N transfers share one link, ends and starts alternate; O(log N) a
completion means that a hundred times as many in flight cost a few times as much each.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

TRACE = Path(__file__).resolve().parents[2] / "examples/traces/mooncake_conversation.jsonl"


def prepare_copies(in_flight: int, completions: int, seed: int) -> Callable[[], int]:
    """A link with so many copies on it; the call lets `completions` of them end, each followed by a new one."""
    from kvsync_mockpod.engine import Link

    link, ended, rng = Link(1e9), 0, random.Random(seed)

    def start_next(at_s: float) -> None:
        nonlocal ended
        ended += 1
        link.start(rng.randrange(1, 1_000_000), at_s, start_next)

    def work() -> int:
        while ended < completions:
            deadline = link.deadline()
            assert deadline is not None
            link.advance(deadline)
        return ended

    for _ in range(in_flight):
        link.start(rng.randrange(1, 1_000_000), 0.0, start_next)
    return work


def cpu_s(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_copies(sizes: list[int], rounds: int, completions: int = 20_000) -> list[dict[str, float]]:
    """Microseconds a completion by copies in flight; putting them on the link is not timed."""
    rows = []
    for size in sizes:
        costs = [cpu_s(prepare_copies(size, completions, number)) / completions for number in range(rounds)]
        rows.append({"in_flight": size, "completion_us": 1e6 * statistics.median(costs)})
    return rows


def measure_replay(core: str, count: int, workers: int, policy: str, rounds: int) -> dict[str, object]:
    """Requests a CPU second of `kvsync replay --offline`."""
    from kvsync.load.trace import read_trace
    from kvsync.replay.offline import OfflineSettings, replay_offline

    requests = read_trace(TRACE, count)
    settings = OfflineSettings(
        workers=workers,
        policy=policy,
        seed=1,
        blocks=16_384,
        block_size=16,
        max_batched_tokens=8192,
        latency="quadratic",
        core=core,  # type: ignore[arg-type]
    )
    arrivals = [request.timestamp_ms / 1000 for request in requests]
    costs = [cpu_s(lambda: replay_offline(requests, arrivals, None, settings)) for _ in range(rounds)]
    return {
        "workers": workers,
        "policy": policy,
        "requests_per_cpu_s": len(requests) / statistics.median(costs),
        "us_a_request": 1e6 * statistics.median(costs) / len(requests),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--core", default="auto")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--copies", type=int, nargs="+", default=[10, 100, 1000, 10_000, 100_000])
    options = parser.parse_args()
    runs = [(workers, "round_robin") for workers in options.workers]
    runs += [(workers, "kv") for workers in options.workers if workers > 1]
    result = {
        "requests": options.requests,
        "replay": [measure_replay(options.core, options.requests, *run, options.rounds) for run in runs],
        "copies": measure_copies(options.copies, options.rounds),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
