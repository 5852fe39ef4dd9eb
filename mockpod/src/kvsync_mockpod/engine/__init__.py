"""The core of the mock engine: vLLM's scheduler, block table and cache tiers as one deterministic object without I/O.

    engine = Engine(EngineConfig(num_gpu_blocks=1024), executor, latency)
    engine.add_request(Request("r1", token_ids, max_tokens=16))
    while engine.has_work():
        result = engine.step(now)       # events and outputs are final after result.duration_s

An import contract ensures that this package imports no socket, clock, thread or event loop.
"""

from kvsync_mockpod.engine.api import (
    Event,
    Executor,
    FinishReason,
    LatencyModel,
    LogEntry,
    LoraRef,
    MMFeature,
    Published,
    Request,
    RequestOutput,
    ResidentBlock,
    StepLoad,
    StepResult,
)
from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.engine import Engine
from kvsync_mockpod.engine.errors import (
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
from kvsync_mockpod.engine.hashing import BlockIdentity
from kvsync_mockpod.engine.log import TransitionLog
from kvsync_mockpod.engine.progress import Finish, Progress
from kvsync_mockpod.engine.stats import EngineStats
from kvsync_mockpod.engine.tiers import Link, TierConfig, TierReport

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
    "Published",
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
