"""What runs in the next step: vLLM's v1 scheduling rules, one token budget a step, no clock and no I/O.

Running sequences first, in order, until the budget is gone; then waiting ones, unless this step preempted. The measure
is vLLM's own scheduler (`test/fidelity`); docs/design/scheduler.md says what is not modelled.
"""

from dataclasses import dataclass, field

from .api import Executor
from .config import EngineConfig
from .errors import RequestFailedError
from .manager import BlockManager
from .queues import WaitingQueue, make_queue
from .sequence import Sequence, Status

__all__ = ["Batch", "Scheduler"]


@dataclass(slots=True)
class Batch:
    """One scheduled step: chunk sizes in batch order, and for each sequence whether (and where) it samples."""

    chunks: dict[Sequence, int] = field(default_factory=dict)
    samples: dict[Sequence, int] = field(default_factory=dict)
    """Index of the output token that the chunk's end produces."""
    hits: dict[str, int] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    preempted: list[str] = field(default_factory=list)
    failed: list[tuple[Sequence, str]] = field(default_factory=list)
    """Refused by the executor at admission, with the reason."""
    prefill_tokens: int = 0
    decode_seqs: int = 0
    kv_tokens: int = 0


class Scheduler:
    """Waiting and running sequences and the rules that move them."""

    def __init__(self, config: EngineConfig, manager: BlockManager, executor: Executor) -> None:
        self.config = config
        self.manager = manager
        self.executor = executor
        self.running: list[Sequence] = []
        self.waiting: WaitingQueue = make_queue(config.policy)
        self.deferred = 0
        """Sequences the last step skipped over."""
        self.paused: str | None = None
        """None, `new` (nothing is admitted) or `all` (nothing is scheduled)."""
        self.preemptions = 0
        self._priority = config.policy == "priority"

    def schedule(self) -> Batch:
        """Choose the next batch and give it its blocks; counters of its sequences advance past it."""
        batch = Batch()
        budget = 0 if self.paused == "all" else self.config.max_num_batched_tokens
        threshold = self._prefill_threshold()
        budget = self._schedule_running(batch, budget, threshold)
        if not batch.preempted and self.paused is None:
            self._schedule_waiting(batch, budget, threshold)
        self._advance(batch)
        return batch

    def preempt(self, seq: Sequence, *, drop_output: bool = False) -> None:
        """Send a sequence (already taken out of `running`) back to the queue; it will be computed again."""
        self.manager.release(seq)
        seq.status = Status.PREEMPTED
        seq.computed = 0
        seq.drop_stale = drop_output or (seq.drop_stale and seq.stale > 0)
        seq.stale = seq.in_flight
        seq.placeholders = 0
        seq.preemptions += 1
        self.preemptions += 1
        self.waiting.push_front(seq)

    def remove(self, seq: Sequence) -> None:
        """Take a sequence out of whichever queue it is in and let go of its blocks."""
        if seq.status is Status.RUNNING:
            self.running.remove(seq)
        elif seq.status in (Status.WAITING, Status.PREEMPTED, Status.PARKED):
            self.waiting.remove(seq)
        self.manager.release(seq)

    def _prefill_threshold(self) -> int:
        """Largest chunk of one request; a request that is alone is spared (vLLM 0.31 on)."""
        alone = len(self.running) + len(self.waiting) <= 1
        return 0 if alone and self.config.lone_request_unthrottled else self.config.long_prefill_token_threshold

    def _schedule_running(self, batch: Batch, budget: int, threshold: int) -> int:
        running, max_len = self.running, self.config.max_model_len
        grow = self.manager.grow
        index = 0
        while index < len(running) and budget > 0:
            seq = running[index]
            index += 1
            if seq.placeholders and seq.computed + 2 - seq.placeholders >= seq.prompt_len + seq.limit:
                continue  # asynchronous: the step in flight reaches max_tokens for certain
            tokens = seq.total + seq.placeholders - seq.computed
            if 0 < threshold < tokens:
                tokens = threshold
            tokens = min(tokens, budget, max_len - seq.computed - 1)
            if tokens <= 0:
                continue
            while not grow(seq, tokens):
                victim, at = self._victim()
                del running[at]
                if at < index:
                    index -= 1
                budget += batch.chunks.pop(victim, 0)
                if self.config.uncomputed_hits == "fixed":
                    self.manager.retract(victim, victim.computed)
                self.preempt(victim)
                batch.preempted.append(victim.id)
                if victim is seq:
                    break
            if seq.status is Status.PREEMPTED:
                if self._priority:
                    continue
                break
            batch.chunks[seq] = tokens
            budget -= tokens
        return budget

    def _victim(self) -> tuple[Sequence, int]:
        """Whom to preempt: the last running (fcfs), or the one with the worst (priority, arrival)."""
        if not self._priority:
            return self.running[-1], len(self.running) - 1
        at = max(range(len(self.running)), key=lambda i: (self.running[i].request.priority, self.running[i].arrival))
        return self.running[at], at

    def _schedule_waiting(self, batch: Batch, budget: int, threshold: int) -> None:
        config = self.config
        loras = {s.request.lora.id for s in self.running if s.request.lora} if config.max_loras else set()
        skipped: list[Sequence] = []
        while budget > 0 and self.waiting and len(self.running) < config.max_num_seqs:
            seq = self.waiting.peek()
            lora = seq.request.lora
            blocked = lora is not None and len(loras) >= config.max_loras and lora.id not in loras
            if blocked or (seq.stale and not seq.drop_stale):
                skipped.append(self.waiting.pop())
                continue
            tokens = self._admit(seq, batch, budget, threshold)
            if tokens is None:
                break
            if lora is not None and tokens:
                loras.add(lora.id)
            budget -= tokens
        self.deferred = len(skipped)
        for seq in reversed(skipped):
            self.waiting.push_front(seq)

    def _admit(self, seq: Sequence, batch: Batch, budget: int, threshold: int) -> int | None:
        """Start a waiting sequence; its chunk, 0 if the executor refused it, None if there is no room."""
        try:
            self.executor.admit(seq.request)
        except RequestFailedError as error:
            self.waiting.pop()
            batch.failed.append((seq, str(error)))
            return 0
        hit = self.manager.find_hit(seq)
        hit_tokens = hit.blocks * self.config.block_size
        tokens = seq.total - hit_tokens
        if 0 < threshold < tokens:
            tokens = threshold
        if tokens > budget and not self.config.enable_chunked_prefill:
            return None
        tokens = min(tokens, budget)
        if not self.manager.admit(seq, hit, tokens, others_running=bool(self.running)):
            return None
        self.waiting.pop()
        self.running.append(seq)
        if seq.status is Status.PREEMPTED:
            batch.resumed[seq.id] = hit_tokens
        else:
            batch.hits[seq.id] = hit_tokens
            seq.cached_tokens = hit_tokens
        seq.status = Status.RUNNING
        seq.computed = hit_tokens
        batch.chunks[seq] = tokens
        return tokens

    def _advance(self, batch: Batch) -> None:
        asynchronous = self.config.is_async
        for seq, tokens in batch.chunks.items():
            seq.computed += tokens
            seq.in_flight += tokens
            seq.prefilling = seq.computed < seq.total + seq.placeholders
            batch.kv_tokens += seq.computed
            if tokens == 1 and seq.computed > seq.prompt_len:
                batch.decode_seqs += 1
            else:
                batch.prefill_tokens += tokens
            if not seq.prefilling:
                batch.samples[seq] = seq.computed - seq.prompt_len
                if asynchronous:
                    seq.placeholders += 1
