"""Frozen counters of an engine; they equal the history of its steps."""

from dataclasses import dataclass

from kvsync_mockpod.engine.tiers.report import TierReport


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Gauges first, then counters since start."""

    running: int
    waiting: int
    waiting_deferred: int
    """Waiting requests skipped over for want of a LoRA slot or a transfer."""
    free_blocks: int
    total_blocks: int
    """Usable blocks (without the null block)."""
    usage: float
    """Share of the usable blocks held by requests, 0 to 1."""
    cached_blocks: int
    steps: int
    requests: int
    """Accepted."""
    refused: int
    prefix_queries: int
    """Tokens looked up in the prefix cache by admitted requests (vLLM's count: first admissions only)."""
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
    """By finish reason."""
    running_loras: tuple[str, ...] = ()
    waiting_loras: tuple[str, ...] = ()
    tiers: TierReport | None = None
    """The lower tiers, if there are any."""
