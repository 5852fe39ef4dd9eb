"""Replays a trace through mock engines in virtual time, in this process, behind the routers of `routers.py`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvsync.errors import UsageProblemError
from kvsync.replay.failures import Failure
from kvsync.replay.records import Record, ReplayResult
from kvsync.replay.routers import KvRouter, PolicyRouter, worker_name
from kvsync_indexer.core.factory import CoreKind
from kvsync_mockpod.engine import EngineConfig, EngineError, TierConfig
from kvsync_mockpod.latency_file import read_latency
from kvsync_mockpod.model_size import TOKEN_BYTES
from kvsync_mockpod.offline import ReplayConfig, RequestRecord, replay
from kvsync_mockpod.offline import ReplayResult as EngineResult
from kvsync_router.decisions.policies import DEFAULT_DECODE_WEIGHT, DEFAULT_PREFILL_WEIGHT, KvAware
from kvsync_workload.arrivals import Arrivals
from kvsync_workload.trace import TraceRequest


@dataclass(frozen=True, slots=True)
class OfflineSettings:
    """Engines and router of one offline replay."""

    workers: int
    policy: str
    seed: int
    blocks: int
    block_size: int
    max_batched_tokens: int
    latency: str
    host_blocks: int = 0
    disk_blocks: int = 0
    core: CoreKind = "auto"
    prefill_weight: float = DEFAULT_PREFILL_WEIGHT
    decode_weight: float = DEFAULT_DECODE_WEIGHT

    def describe(self) -> dict[str, Any]:
        """The settings that decide the outcome, as JSON values for the report."""
        weights = {"prefill_weight": self.prefill_weight, "decode_weight": self.decode_weight}
        return {
            "workers": self.workers,
            "blocks": self.blocks,
            "max_batched_tokens": self.max_batched_tokens,
            "latency": self.latency,
            "host_blocks": self.host_blocks,
            "disk_blocks": self.disk_blocks,
            **(weights if self.policy == "kv" else {}),
        }


def replay_offline(
    requests: Sequence[TraceRequest], arrivals: Arrivals, settings: OfflineSettings
) -> tuple[ReplayResult, float]:
    """Play all requests; return the result and the hit ratio of an unlimited cache.

    Raises UsageProblemError for settings that no engine can run with.
    """
    router: KvRouter | PolicyRouter
    if settings.policy == "kv":
        policy = KvAware(settings.prefill_weight, settings.decode_weight)
        router = KvRouter(policy, settings.workers, settings.block_size, settings.core)
    else:
        router = PolicyRouter(settings.policy, settings.seed, settings.workers)
    longest = max(request.input_tokens + request.output_tokens for request in requests)
    try:
        config = ReplayConfig(
            workers=settings.workers,
            engine=EngineConfig.build(
                num_gpu_blocks=settings.blocks,
                block_size=settings.block_size,
                max_model_len=longest + 1,
                max_num_batched_tokens=settings.max_batched_tokens,
            ),
            latency=read_latency(settings.latency),
            tiers=_tiers(settings),
            arrivals=arrivals,
            seed=settings.seed,
        )
        result = replay(requests, config, router)
    except EngineError as error:
        raise UsageProblemError(f"replay --offline: {error}") from None
    prompt = sum(record.prompt_tokens for record in result.records)
    regret = router.regret_tokens if isinstance(router, KvRouter) else None
    return _result(result, regret), result.ideal_hit_tokens / max(prompt, 1)


def _tiers(settings: OfflineSettings) -> TierConfig | None:
    if not settings.host_blocks:
        return None
    return TierConfig.build(
        host_blocks=settings.host_blocks,
        disk_blocks=settings.disk_blocks,
        block_bytes=settings.block_size * TOKEN_BYTES,
    )


def _result(result: EngineResult, regret_tokens: int | None) -> ReplayResult:
    return ReplayResult(
        records=[_record(record) for record in result.records],
        gaps_us=result.gaps_us,
        workers=[worker_name(number) for number in range(len(result.workers))],
        regret_tokens=regret_tokens,
        preemptions=sum(worker.preemptions for worker in result.workers),
        tiers={
            worker_name(number): asdict(worker.tiers)
            for number, worker in enumerate(result.workers)
            if worker.tiers is not None
        },
    )


def _record(record: RequestRecord) -> Record:
    first = record.first_token_s if record.first_token_s is not None else record.sent_s
    return Record(
        number=record.number,
        worker=worker_name(record.worker),
        arrival_s=record.arrival_s,
        first_token_s=first,
        ended_s=record.ended_s if record.ended_s is not None else first,
        prompt_tokens=record.prompt_tokens,
        hit_tokens=record.cached_tokens,
        output_tokens=record.output_tokens,
        failure=None if record.ok else Failure("the engine did not complete the request"),
    )
