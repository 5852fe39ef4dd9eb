"""Offline replay: a trace through many engines in virtual time, in one process, the same to the byte for one seed.

    requests = read_trace("conversation.jsonl", limit=2000)
    result = replay(requests, ReplayConfig(workers=4), router=RoundRobinRouter())

The engines are the live pod's (`kvsync_mockpod.engine`); only the clock differs. A router is any object with `choose`
and `observe`; the one that asks the real index is built on top by the command line.
"""

from .arrivals import Arrivals, arrival_times
from .replay import ReplayConfig, replay
from .result import ReplayResult, RequestRecord, WorkerRecord
from .routing import LeastRequestRouter, RandomRouter, RoundRobinRouter, Router, WorkerLoad
from .trace import TraceError, TraceRequest, ideal_hit_tokens, packed_tokens, read_trace

__all__ = [
    "Arrivals",
    "LeastRequestRouter",
    "RandomRouter",
    "ReplayConfig",
    "ReplayResult",
    "RequestRecord",
    "RoundRobinRouter",
    "Router",
    "TraceError",
    "TraceRequest",
    "WorkerLoad",
    "WorkerRecord",
    "arrival_times",
    "ideal_hit_tokens",
    "packed_tokens",
    "read_trace",
    "replay",
]
