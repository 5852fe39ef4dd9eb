"""Offline replay: a trace through many engines in virtual time, in one process; one seed gives the same bytes.

    requests = read_trace(Path("conversation.jsonl"), limit=2000).requests
    result = replay(requests, ReplayConfig(workers=4), router=RoundRobinRouter())

The engines are those of the live pod (`kvsync_mockpod.engine`); only the clock differs. Traces, arrivals and prompts
come from `kvsync_workload`, as in live replay. A router is any object that satisfies `Router`; the command line adds
the one that asks the real index.
"""

from kvsync_mockpod.offline.replay import ReplayConfig, replay
from kvsync_mockpod.offline.result import ReplayResult, RequestRecord, WorkerRecord
from kvsync_mockpod.offline.routing import LeastRequestRouter, RandomRouter, RoundRobinRouter, Router, WorkerLoad

__all__ = [
    "LeastRequestRouter",
    "RandomRouter",
    "ReplayConfig",
    "ReplayResult",
    "RequestRecord",
    "RoundRobinRouter",
    "Router",
    "WorkerLoad",
    "WorkerRecord",
    "replay",
]
