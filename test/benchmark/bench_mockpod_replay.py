"""Measures the offline replay by number of workers and policy, in requests per CPU second.

    python bench_mockpod_replay.py [--core auto] [--requests 2000] [--workers 1 4 16] [--rounds 3]

Prints JSON. The replay plays the first requests of the conversation trace in 16-token blocks with the defaults of
`kvsync replay --offline`. `kv` is played with more than one worker, and uses the real index core.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

TRACE = Path(__file__).resolve().parents[2] / "examples/traces/mooncake_conversation.jsonl"


def cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU time of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure_replay(core: str, count: int, workers: int, policy: str, rounds: int) -> dict[str, object]:
    """Return the requests per CPU second of `kvsync replay --offline`."""
    from kvsync.replay.offline import OfflineSettings, replay_offline
    from kvsync_workload.arrivals import Arrivals
    from kvsync_workload.trace import read_trace

    requests = read_trace(TRACE, count).requests
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
    costs = [cpu_s(lambda: replay_offline(requests, Arrivals(), settings)) for _ in range(rounds)]
    return {
        "workers": workers,
        "policy": policy,
        "requests_per_cpu_s": len(requests) / statistics.median(costs),
        "us_per_request": 1e6 * statistics.median(costs) / len(requests),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--core", default="auto")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    runs = [(workers, "round_robin") for workers in options.workers]
    runs += [(workers, "kv") for workers in options.workers if workers > 1]
    result = {
        "requests": options.requests,
        "replay": [measure_replay(options.core, options.requests, *run, options.rounds) for run in runs],
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
