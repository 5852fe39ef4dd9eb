"""A trace through engines in virtual time, in this process: the mock engine's driver under our routers and report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kvsync.errors import UsageProblemError
from kvsync.load.trace import TRACE_BLOCK_TOKENS, TraceRequest
from kvsync.replay.records import Record, ReplayResult
from kvsync.replay.routers import KvRouter, PolicyRouter, worker_name
from kvsync_indexer.core.factory import CoreKind
from kvsync_mockpod.engine import EngineConfig, EngineError, TierConfig
from kvsync_mockpod.offline import Arrivals as EngineArrivals
from kvsync_mockpod.offline import ReplayConfig, RequestRecord, ideal_hit_tokens, replay
from kvsync_mockpod.offline import ReplayResult as EngineResult
from kvsync_mockpod.offline import TraceRequest as EngineRequest

TOKEN_BYTES = 2 * 32 * 8 * 128 * 2
"""KV bytes of a token of Llama 3.1 8B: keys and values, 32 layers, 8 heads of 128, 2 bytes (its model card)."""


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

    def describe(self) -> dict[str, Any]:
        """What decides the outcome, for the report."""
        return {
            "workers": self.workers,
            "blocks": self.blocks,
            "max_batched_tokens": self.max_batched_tokens,
            "latency": self.latency,
            "host_blocks": self.host_blocks,
            "disk_blocks": self.disk_blocks,
        }


def replay_offline(
    requests: Sequence[TraceRequest],
    arrivals_s: Sequence[float],
    max_in_flight: int | None,
    settings: OfflineSettings,
) -> tuple[ReplayResult, float]:
    """Play everything; the result, and the hit ratio of an unlimited cache. UsageProblemError is one line."""
    converted = [
        _convert(number, request, arrival_s)
        for number, (request, arrival_s) in enumerate(zip(requests, arrivals_s, strict=True))
    ]
    router: KvRouter | PolicyRouter
    if settings.policy == "kv":
        router = KvRouter(settings.seed, settings.workers, settings.core)
    else:
        router = PolicyRouter(settings.policy, settings.seed, settings.workers)
    longest = max(request.input_tokens + request.output_tokens for request in converted)
    try:
        config = ReplayConfig(
            workers=settings.workers,
            engine=EngineConfig.build(
                num_gpu_blocks=settings.blocks,
                block_size=settings.block_size,
                max_model_len=longest + 1,
                max_num_batched_tokens=settings.max_batched_tokens,
            ),
            latency=settings.latency,
            tiers=_tiers(settings),
            arrivals=EngineArrivals(max_in_flight=max_in_flight),
            seed=settings.seed,
        )
        result = replay(converted, config, router)
    except EngineError as error:
        raise UsageProblemError(f"replay --offline: {error}") from None
    prompt = sum(record.prompt_tokens for record in result.records)
    return _result(result), result.ideal_hit_tokens / max(prompt, 1)


def ideal_hit_ratio(requests: Sequence[TraceRequest], block_size: int) -> float:
    """What an unlimited cache would serve of them, from block ids alone; UsageProblemError if those do not fit."""
    converted = [_convert(number, request, 0.0) for number, request in enumerate(requests)]
    return ideal_hit_tokens(converted, block_size) / sum(request.input_tokens for request in requests)


def _tiers(settings: OfflineSettings) -> TierConfig | None:
    if not settings.host_blocks:
        return None
    return TierConfig.build(
        host_blocks=settings.host_blocks,
        disk_blocks=settings.disk_blocks,
        block_bytes=settings.block_size * TOKEN_BYTES,
    )


def _convert(number: int, request: TraceRequest, arrival_s: float) -> EngineRequest:
    needed = -(-request.input_tokens // TRACE_BLOCK_TOKENS)
    if len(request.hash_ids) != needed:
        raise UsageProblemError(
            f"request {number + 1}: {request.input_tokens} tokens need {needed} hash_ids of {TRACE_BLOCK_TOKENS}, "
            f"not {len(request.hash_ids)}"
        )
    return EngineRequest(arrival_s, request.input_tokens, max(request.output_tokens, 1), request.hash_ids)


def _result(result: EngineResult) -> ReplayResult:
    return ReplayResult(
        records=[_record(record) for record in result.records],
        gaps_us=result.gaps_us,
        workers=[worker_name(number) for number in range(len(result.workers))],
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
        ok=record.ok,
    )
