"""The mock engine's scheduler, ready to step on a virtual clock, with scripted outputs and assertions on its step log.

Scheduler, block table and tiers are the product's (`kvsync_mockpod.engine`). The kit takes the place of the model
(executors), of time (`kvsync_testkit.clock`) and of the server in front (`SteppedScheduler`).
"""

from kvsync_testkit.scheduler.building import SchedulerBuilder, engine_config, run_requests
from kvsync_testkit.scheduler.executors import EOS_TOKEN, FailingExecutor, RefusingExecutor, ScriptedExecutor
from kvsync_testkit.scheduler.loads import RecordingLatency
from kvsync_testkit.scheduler.requests import make_request, prompt_tokens
from kvsync_testkit.scheduler.steplog import StepLog
from kvsync_testkit.scheduler.stepping import Outcome, SteppedScheduler

__all__ = [
    "EOS_TOKEN",
    "FailingExecutor",
    "Outcome",
    "RecordingLatency",
    "RefusingExecutor",
    "SchedulerBuilder",
    "ScriptedExecutor",
    "StepLog",
    "SteppedScheduler",
    "engine_config",
    "make_request",
    "prompt_tokens",
    "run_requests",
]
