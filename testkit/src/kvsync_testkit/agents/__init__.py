"""Transfer agents: named sets of backends that move blocks between layouts, with the missing ones accounted for.

POSIX (file I/O), SHM (shared memory) and TCP really carry the bytes and work wherever Python does. UCX and GDS_MT
(GPUDirect Storage) need hardware and libraries; the kit looks for them and says why they are missing.
"""

from kvsync_testkit.agents.agent import Agent, AgentBuilder
from kvsync_testkit.agents.carriers import Carrier
from kvsync_testkit.agents.probing import KNOWN_BACKENDS, backend_unavailable
from kvsync_testkit.agents.skipping import skip_without_backend

__all__ = [
    "KNOWN_BACKENDS",
    "Agent",
    "AgentBuilder",
    "Carrier",
    "backend_unavailable",
    "skip_without_backend",
]
