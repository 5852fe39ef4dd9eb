"""Chooses what runs in the next step by the rules of vLLM's v1 scheduler.

Each step has one token budget. Running sequences are served first, in order; waiting ones are admitted with what is
left, unless the step preempted a sequence. vLLM's own scheduler is the reference (`test/fidelity`);
docs/design/scheduler.md lists what is not modelled.
"""

from dataclasses import dataclass, field

from kvsync_mockpod.engine.api import Executor
from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.errors import RequestFailedError
from kvsync_mockpod.engine.manager import BlockManager, Fit
from kvsync_mockpod.engine.pool import Hit
from kvsync_mockpod.engine.queues import WaitingQueue, make_queue
from kvsync_mockpod.engine.sequence import Sequence, Status


@dataclass(slots=True)
class Batch:
    """One scheduled step. `chunks` holds the token count per sequence, in batch order."""

    chunks: dict[Sequence, int] = field(default_factory=dict)
    samples: dict[Sequence, int] = field(default_factory=dict)
    """Index of the output token that the end of the chunk produces, for sequences that sample."""
    hits: dict[str, int] = field(default_factory=dict)
    resumed: dict[str, int] = field(default_factory=dict)
    preempted: list[str] = field(default_factory=list)
    failed: list[tuple[Sequence, str]] = field(default_factory=list)
    """Sequences that the executor refused at admission, with the reason."""
    prefill_tokens: int = 0
    decode_seqs: int = 0
    kv_tokens: int = 0


class Scheduler:
    """The waiting and running sequences, and the rules by which they change state."""

    def __init__(self, config: EngineConfig, manager: BlockManager, executor: Executor) -> None:
        self.config = config
        self.manager = manager
        self.executor = executor
        self.running: list[Sequence] = []
        self.waiting: WaitingQueue = make_queue(config.policy, skipped_first=config.skipped_first)
        self.parked: WaitingQueue = make_queue(config.policy)
        """Waiting sequences that hold blocks.

        They are served before `waiting`, so that no sequence there can block them.
        """
        self.deferred = 0
        """Number of sequences that the last step skipped."""
        self.paused: str | None = None
        """None, `new` (only sequences that hold blocks are admitted) or `all` (nothing is scheduled)."""
        self.preemptions = 0
        self._admitted = 0
        self._priority = config.policy == "priority"

    def schedule(self) -> Batch:
        """Choose the next batch and allocate its blocks; the counters of its sequences already include the batch."""
        batch = Batch()
        budget = 0 if self.paused == "all" else self.config.max_num_batched_tokens
        threshold = self.prefill_threshold()
        budget = self._schedule_running(batch, budget, threshold)
        if not batch.preempted and self.paused != "all":
            self.schedule_waiting(batch, budget, threshold)
        self._advance(batch)
        return batch

    def preempt(self, seq: Sequence, *, drop_output: bool = False) -> None:
        """Return a sequence, already taken out of `running`, to the waiting queue; all its tokens will be computed
        again.
        """
        self.manager.release(seq)
        seq.status = Status.PREEMPTED
        seq.computed = 0
        seq.drop_stale = drop_output or (seq.drop_stale and seq.stale > 0)
        seq.stale = seq.in_flight
        seq.placeholders = 0
        seq.preemptions += 1
        self.preemptions += 1
        self.waiting.push_front(seq)

    def forget_progress(self) -> None:
        """Take their blocks from all waiting sequences, so that they start from their first token."""
        for seq in reversed(list(self.parked)):
            self.parked.remove(seq)
            seq.status = Status.PREEMPTED if seq.preemptions else Status.WAITING
            self.waiting.push_front(seq)
        for seq in self.waiting:
            self.manager.release(seq)
            seq.computed = 0

    def remove(self, seq: Sequence) -> None:
        """Take a sequence out of the queue that it is in and release its blocks."""
        if seq.status is Status.RUNNING:
            self.running.remove(seq)
        else:
            self.unqueue(seq)
        self.manager.release(seq)

    def unqueue(self, seq: Sequence) -> None:
        """Take a waiting sequence out of its queue."""
        self._queue_of(seq).remove(seq)

    @property
    def unfinished(self) -> int:
        """Sequences that can make progress as vLLM counts them: none in pause `all`, those with blocks in `new`."""
        if self.paused == "all":
            return 0
        waiting = self.queued if self.paused is None else len(self.parked.live)
        return len(self.running) + waiting

    @property
    def queued(self) -> int:
        """Number of waiting sequences, with or without blocks."""
        return len(self.waiting.live) + len(self.parked.live)

    def _queue_of(self, seq: Sequence) -> WaitingQueue:
        return self.parked if seq.status is Status.PARKED else self.waiting

    def prefill_threshold(self) -> int:
        """Largest chunk of one request, 0 for no limit; from vLLM 0.31 on a request that is alone is not limited."""
        if not self.config.long_prefill_token_threshold:
            return 0
        alone = len(self.running) + self.queued <= 1
        return 0 if alone and self.config.lone_request_unthrottled else self.config.long_prefill_token_threshold

    def _schedule_running(self, batch: Batch, budget: int, threshold: int) -> int:
        running, max_len = self.running, self.config.max_model_len
        grow = self.manager.grow
        index = 0
        while index < len(running) and budget > 0:
            seq = running[index]
            index += 1
            if seq.placeholders and seq.computed + 2 - seq.placeholders >= seq.prompt_len + seq.limit:
                continue  # with asynchronous scheduling, the step in flight is certain to reach max_tokens
            tokens = seq.total + seq.placeholders - seq.computed
            if 0 < threshold < tokens:
                tokens = threshold
            tokens = min(tokens, budget, max_len - seq.computed - 1)
            if tokens <= 0:
                continue
            while (fit := grow(seq, tokens)) is Fit.NO:
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
            if fit is Fit.LATER:  # copies under way will free enough slots, so nothing is preempted
                break
            batch.chunks[seq] = tokens
            budget -= tokens
        return budget

    def _victim(self) -> tuple[Sequence, int]:
        """The running sequence to preempt, with its index: the last one (fcfs), or the one with the worst (priority,
        arrival).
        """
        if not self._priority:
            return self.running[-1], len(self.running) - 1
        at = max(range(len(self.running)), key=lambda i: (self.running[i].request.priority, self.running[i].arrival))
        return self.running[at], at

    def schedule_waiting(self, batch: Batch, budget: int, threshold: int) -> None:
        """Admit waiting sequences in order until the budget, the request slots or the free blocks are used up."""
        config = self.config
        loras = self._loras(batch)
        skipped: list[Sequence] = []
        while budget > 0 and len(self.running) < config.max_num_seqs:
            queue = self.parked if self.parked.live or self.paused else self.waiting
            if not queue.live:
                break
            seq = queue.peek()
            lora = seq.request.lora
            blocked = lora is not None and len(loras) >= config.max_loras and lora.id not in loras
            if blocked or (seq.stale and not seq.drop_stale) or not self._loaded(seq):
                skipped.append(queue.pop())
                continue
            tokens = self._admit(seq, batch, budget, threshold)
            if tokens is None:
                if seq.loading is None:
                    self._unpark_for(seq, skipped)
                    break
                skipped.append(self.waiting.pop())
                seq.status = Status.PARKED
                continue
            if lora is not None and tokens:
                loras.add(lora.id)
            budget -= tokens
        self.deferred = len(skipped)
        for seq in reversed(skipped):
            self._queue_of(seq).put_back(seq)

    def _loras(self, batch: Batch) -> set[int]:
        """Ids of the adapters that occupy a LoRA slot."""
        if not self.config.max_loras:
            return set()
        # Without asynchronous scheduling, every running sequence is in the batch whenever budget is left for
        # admissions.
        holders = self.running if self.config.loras_of_running or not self.config.is_async else batch.chunks
        return {seq.request.lora.id for seq in holders if seq.request.lora}

    def _loaded(self, seq: Sequence) -> bool:
        """Whether a waiting sequence can go on without waiting for a transfer; a transfer that has ended is completed
        here.
        """
        if seq.loading is None:
            return True
        if not seq.loading.is_complete:
            return False
        self.manager.finish_load(seq)
        return True

    def _unpark_for(self, seq: Sequence, skipped: list[Sequence]) -> None:
        """Free blocks for `seq` if nothing runs: the last other parked sequence that is ready to run gives up its
        blocks.
        """
        if self.running:
            return
        ready = [
            s
            for s in (*skipped, *self.parked)
            if s is not seq and s.status is Status.PARKED and (s.loading is None or s.loading.is_complete)
        ]
        if ready:
            victim = ready[-1]
            if victim not in skipped:
                self.parked.remove(victim)
                self.waiting.push_front(victim)
            self.manager.release(victim)
            victim.computed = 0
            victim.status = Status.PREEMPTED if victim.preemptions else Status.WAITING

    def _admit(self, seq: Sequence, batch: Batch, budget: int, threshold: int) -> int | None:
        """Start a waiting sequence; returns its chunk size, 0 if the executor refused it, None if it has to wait."""
        try:
            self.executor.admit(seq.request)
        except RequestFailedError as error:
            self._queue_of(seq).pop()
            self.manager.release(seq)
            batch.failed.append((seq, str(error)))
            return 0
        hit = Hit()
        others = bool(self.running)
        if not seq.computed:
            hit = self.manager.find_hit(seq)
            prepared = self.manager.find_in_tiers(seq, hit)
            if prepared is not None:
                if not self.manager.start_load(seq, hit, prepared, others_running=others) or not self._loaded(seq):
                    return None
                hit = Hit()
        known = seq.computed or hit.blocks * self.config.block_size
        tokens = seq.total - known
        if 0 < threshold < tokens:
            tokens = threshold
        if tokens > budget and not self.config.enable_chunked_prefill:
            return None
        tokens = min(tokens, budget)
        if not self.manager.admit(seq, hit, tokens, others_running=others):
            return None
        self._queue_of(seq).pop()
        self.running.append(seq)
        self._admitted += 1
        seq.order = self._admitted
        if seq.preemptions:
            batch.resumed[seq.id] = known
        else:
            batch.hits[seq.id] = known
            seq.cached_tokens = known
        seq.status = Status.RUNNING
        seq.computed = known
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
