"""The mock engine's core: vLLM's scheduler, block table and tiers as one deterministic object without I/O.

    engine = Engine(EngineConfig(num_gpu_blocks=1024), executor, latency)
    engine.add_request(Request("r1", token_ids, max_tokens=16))
    while engine.has_work():
        result = engine.step(now)       # events and outputs are final after result.duration_s

No socket, clock, thread or event loop is imported here (an import contract checks it).
"""

from .api import (
    Event,
    Executor,
    FinishReason,
    LatencyModel,
    LogEntry,
    LoraRef,
    MMFeature,
    Request,
    RequestOutput,
    ResidentBlock,
    StepLoad,
    StepResult,
)
from .config import EngineConfig
from .engine import Engine
from .errors import (
    DrainingError,
    DuplicateRequestError,
    EngineConfigError,
    EngineError,
    ExecutorError,
    InvalidRequestError,
    PromptEmptyError,
    PromptTooLongError,
    QueueFullError,
    RequestFailedError,
    RequestRefusedError,
    StepFailedError,
    UnknownLoraError,
)
from .hashing import BlockIdentity
from .log import TransitionLog
from .progress import Finish, Progress
from .stats import EngineStats
from .tiers import Link, TierConfig, TierReport

__all__ = [
    "BlockIdentity",
    "DrainingError",
    "DuplicateRequestError",
    "Engine",
    "EngineConfig",
    "EngineConfigError",
    "EngineError",
    "EngineStats",
    "Event",
    "Executor",
    "ExecutorError",
    "Finish",
    "FinishReason",
    "InvalidRequestError",
    "LatencyModel",
    "Link",
    "LogEntry",
    "LoraRef",
    "MMFeature",
    "Progress",
    "PromptEmptyError",
    "PromptTooLongError",
    "QueueFullError",
    "Request",
    "RequestFailedError",
    "RequestOutput",
    "RequestRefusedError",
    "ResidentBlock",
    "StepFailedError",
    "StepLoad",
    "StepResult",
    "TierConfig",
    "TierReport",
    "TransitionLog",
    "UnknownLoraError",
]
