"""Counters of an engine since its start."""

from kvsync_mockpod.engine.scheduler import Batch


class Counters:
    """The counters; `EngineStats` describes each of them."""

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
        """Count `steps` steps that gave each of `sequences` sequences one token."""
        self.steps += steps
        self.scheduled_tokens += steps * sequences
        self.generation_tokens += steps * sequences

    def scheduled(self, batch: Batch) -> None:
        """Count the tokens of a chosen batch, and the prefix lookups of the requests that it admitted."""
        self.scheduled_tokens += sum(batch.chunks.values())
        if batch.hits:
            for seq in batch.chunks:
                if seq.id in batch.hits:
                    self.prompt_tokens += seq.prompt_len
                    self.prefix_queries += seq.total
            self.prefix_hits += sum(batch.hits.values())
