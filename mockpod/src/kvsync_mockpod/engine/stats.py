"""Frozen statistics of an engine: its current gauges, and counters that equal the history of its steps."""

from dataclasses import dataclass

from kvsync_mockpod.engine.state import EngineState
from kvsync_mockpod.engine.tiers.report import TierReport


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot: gauges first, then counters since the engine's start."""

    running: int
    waiting: int
    waiting_deferred: int
    """Waiting requests that the last step skipped, for lack of a LoRA slot or because of a transfer."""
    free_blocks: int
    total_blocks: int
    """Usable blocks, without the null block."""
    usage: float
    """Share of the usable blocks that requests hold, 0 to 1."""
    cached_blocks: int
    steps: int
    requests: int
    """Accepted requests."""
    refused: int
    prefix_queries: int
    """Tokens looked up in the prefix cache by admitted requests. As in vLLM only first admissions count."""
    prefix_hits: int
    prompt_tokens: int
    prompt_tokens_cached: int
    generation_tokens: int
    preemptions: int
    scheduled_tokens: int
    step_failures: int
    stored_blocks: int
    removed_blocks: int
    finished: dict[str, int]
    """Ended requests by finish reason."""
    running_loras: tuple[str, ...] = ()
    waiting_loras: tuple[str, ...] = ()
    tiers: TierReport | None = None
    """Report of the lower tiers, None if there are none."""


def take_statistics(state: EngineState) -> EngineStats:
    """Read the gauges and counters of an engine."""
    counts, scheduler, pool = state.counts, state.scheduler, state.pool
    total = state.config.usable_blocks
    return EngineStats(
        running=len(scheduler.running),
        waiting=scheduler.queued,
        waiting_deferred=scheduler.deferred,
        free_blocks=pool.free,
        total_blocks=total,
        usage=1.0 - pool.free / total,
        cached_blocks=pool.resident,
        steps=counts.steps,
        requests=counts.requests,
        refused=counts.refused,
        prefix_queries=counts.prefix_queries,
        prefix_hits=counts.prefix_hits,
        prompt_tokens=counts.prompt_tokens,
        prompt_tokens_cached=counts.prefix_hits,
        generation_tokens=counts.generation_tokens,
        preemptions=scheduler.preemptions,
        scheduled_tokens=counts.scheduled_tokens,
        step_failures=counts.step_failures,
        stored_blocks=state.recorder.stored_blocks,
        removed_blocks=state.recorder.removed_blocks,
        finished=dict(counts.finished),
        running_loras=tuple(sorted({s.request.lora.name for s in scheduler.running if s.request.lora})),
        tiers=None if state.tiers is None else state.tiers.report(),
        waiting_loras=tuple(sorted({s.request.lora.name for s in scheduler.waiting if s.request.lora})),
    )
