"""The builder of schedulers, and the small engine that it makes unless told otherwise."""

from collections.abc import Iterable
from typing import Any, Self

from kvsync_mockpod.engine import Engine, EngineConfig, Executor, LatencyModel, Link, Request, TierConfig
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.scheduler.executors import ScriptedExecutor
from kvsync_testkit.scheduler.stepping import SteppedScheduler


def engine_config(**settings: Any) -> EngineConfig:  # noqa: ANN401 - the fields of `EngineConfig`
    """A small synchronous engine: 256 usable blocks of 16 tokens, 8 running requests, 128 tokens per step.

    Raises:
        EngineConfigError: an unknown setting, or a value that the engine cannot run with.
    """
    defaults: dict[str, Any] = {
        "num_gpu_blocks": 257,
        "max_model_len": 1024,
        "max_num_seqs": 8,
        "max_num_batched_tokens": 128,
        "async_scheduling": False,
        "hash_algo": "sha256_cbor",
        "hash_seed": "0",
    }
    return EngineConfig.build(**(defaults | settings))


class SchedulerBuilder:
    """A scheduler ready to step: scripted outputs, steps that take no time and no lower tiers, unless changed."""

    def __init__(
        self,
        *,
        executor: Executor | None = None,
        latency: LatencyModel | None = None,
        clock: VirtualClock | None = None,
        tiers: TierConfig | None = None,
        disk_link: Link | None = None,
        **settings: Any,  # noqa: ANN401 - the fields of `EngineConfig`
    ) -> None:
        self._executor = executor
        self._latency = latency
        self._clock = clock
        self._tiers = tiers
        self._disk_link = disk_link
        self._settings = settings
        self._requests: list[Request] = []

    def executor(self, executor: Executor) -> Self:
        """What gives the output tokens, and which steps or requests fail."""
        self._executor = executor
        return self

    def latency(self, latency: LatencyModel) -> Self:
        """How long steps take."""
        self._latency = latency
        return self

    def clock(self, clock: VirtualClock) -> Self:
        """Share a clock with other parts of the test."""
        self._clock = clock
        return self

    def tiers(self, tiers: TierConfig, *, disk_link: Link | None = None) -> Self:
        """Put host memory, and perhaps a disk, behind the device; engines that share a disk share its link."""
        self._tiers = tiers
        self._disk_link = disk_link
        return self

    def settings(self, **settings: Any) -> Self:  # noqa: ANN401 - the fields of `EngineConfig`
        """Change fields of the engine's configuration (see `engine_config`)."""
        self._settings |= settings
        return self

    def requests(self, *requests: Request) -> Self:
        """Queue requests before the first step."""
        self._requests += requests
        return self

    def build(self) -> SteppedScheduler:
        """The scheduler.

        Raises:
            EngineConfigError: an unknown setting, or a value that the engine cannot run with.
        """
        engine = Engine(
            engine_config(**self._settings),
            self._executor or ScriptedExecutor(),
            self._latency,
            tiers=self._tiers,
            disk_link=self._disk_link,
        )
        scheduler = SteppedScheduler(engine, self._clock)
        scheduler.add(*self._requests)
        return scheduler


def run_requests(
    requests: Iterable[Request],
    *,
    executor: Executor | None = None,
    latency: LatencyModel | None = None,
    **settings: Any,  # noqa: ANN401 - the fields of `EngineConfig`
) -> SteppedScheduler:
    """Queue all requests, run them to their ends, and return the scheduler with its record."""
    builder = SchedulerBuilder(executor=executor, latency=latency, **settings)
    return builder.requests(*requests).build().until_idle()
