"""What an engine has counted since start, and the frozen snapshot made of it."""

from typing import TYPE_CHECKING

from kvsync_mockpod.engine.scheduler import Batch
from kvsync_mockpod.engine.stats import EngineStats

if TYPE_CHECKING:
    from kvsync_mockpod.engine.engine import Engine


class Counters:
    """What `statistics` counts since start."""

    def __init__(self) -> None:
        self.steps = 0
        self.requests = 0
        self.refused = 0
        self.prefix_queries = 0
        self.prefix_hits = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.scheduled_tokens = 0
        self.step_failures = 0
        self.finished: dict[str, int] = {}

    def decoded(self, steps: int, sequences: int) -> None:
        """So many steps gave each of so many sequences a token."""
        self.steps += steps
        self.scheduled_tokens += steps * sequences
        self.generation_tokens += steps * sequences

    def scheduled(self, batch: Batch) -> None:
        """A batch was chosen."""
        self.scheduled_tokens += sum(batch.chunks.values())
        if batch.hits:
            for seq in batch.chunks:
                if seq.id in batch.hits:
                    self.prompt_tokens += seq.prompt_len
                    self.prefix_queries += seq.total
            self.prefix_hits += sum(batch.hits.values())


def take_statistics(engine: "Engine") -> EngineStats:
    """Counters and gauges of an engine, frozen."""
    counts, scheduler, pool = engine.counts, engine.scheduler, engine.pool
    total = engine.config.usable_blocks
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
        stored_blocks=engine.recorder.stored_blocks,
        removed_blocks=engine.recorder.removed_blocks,
        finished=dict(counts.finished),
        running_loras=tuple(sorted({s.request.lora.name for s in scheduler.running if s.request.lora})),
        tiers=None if engine.tiers is None else engine.tiers.report(),
        waiting_loras=tuple(sorted({s.request.lora.name for s in scheduler.waiting if s.request.lora})),
    )
