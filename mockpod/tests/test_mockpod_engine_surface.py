"""The public names of the engine and of the offline replay, which others depend on."""

import kvsync_mockpod.engine as engine
import kvsync_mockpod.offline as offline

ENGINE = """
BlockIdentity DrainingError DuplicateRequestError Engine EngineConfig EngineConfigError EngineError EngineStats
Event Executor ExecutorError Finish FinishReason InvalidRequestError LatencyModel Link LogEntry LoraRef MMFeature
Progress PromptEmptyError PromptTooLongError Published QueueFullError Request RequestFailedError RequestOutput
RequestRefusedError ResidentBlock StepFailedError StepLoad StepResult TierConfig TierReport TransitionLog
UnknownLoraError
"""

OFFLINE = """
LeastRequestRouter RandomRouter ReplayConfig ReplayResult RequestRecord RoundRobinRouter Router WorkerLoad WorkerRecord
replay
"""


def test_public_names():
    assert sorted(engine.__all__) == sorted(ENGINE.split())
    assert sorted(offline.__all__) == sorted(OFFLINE.split())
    assert all(hasattr(engine, name) for name in engine.__all__)
    assert all(hasattr(offline, name) for name in offline.__all__)


def test_the_engine_is_driven_by_these_methods():
    public = {name for name in vars(engine.Engine) if not name.startswith("_")}
    assert {
        "abort",
        "add_request",
        "advance",
        "blocks",
        "drain",
        "has_work",
        "next_deadline",
        "pause",
        "request_ids",
        "reset_prefix_cache",
        "statistics",
        "step",
    } <= public
