"""The engine: one `step(now)` is one call of vLLM's engine core, synchronous or one step ahead.

It owns no clock and waits for nothing: `step` says how long the batch takes, and the driver (a live pod or an offline
replay) lets that time pass before it delivers the outputs and publishes the events.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator

from .api import Executor, FinishReason, LatencyModel, Request, RequestOutput, ResidentBlock, StepLoad, StepResult
from .config import EngineConfig
from .errors import (
    DrainingError,
    DuplicateRequestError,
    EngineConfigError,
    InvalidRequestError,
    PromptEmptyError,
    PromptTooLongError,
    QueueFullError,
    StepFailedError,
    UnknownLoraError,
)
from .hashing import BlockIdentity, HashedIdentity
from .lockstep import Finish, Lockstep, Progress
from .log import TransitionLog
from .manager import BlockManager
from .pool import BlockPool
from .recorder import Recorder
from .scheduler import Batch, Scheduler
from .sequence import Sequence, Status
from .stats import EngineStats
from .tiers import Link, OffloadEngine, TierConfig

__all__ = ["Engine"]


class Engine:
    """A vLLM engine core without a model: scheduler, block table and ground truth behind one `step`."""

    def __init__(
        self,
        config: EngineConfig,
        executor: Executor,
        latency: LatencyModel | None = None,
        *,
        tiers: TierConfig | None = None,
        disk_link: Link | None = None,
        identity: BlockIdentity | None = None,
        publish: bool = True,
        random_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self.config = config
        self.executor = executor
        self.latency = latency
        self.log = TransitionLog(config.log_entries)
        self.recorder = Recorder(config.block_size, self.log, publish=publish, keep_tokens=config.keep_tokens)
        self.pool = BlockPool(
            config.usable_blocks,
            self.recorder,
            caching=config.enable_prefix_caching,
            blanks_first=config.blanks_first,
        )
        self.identity = identity or HashedIdentity(
            block_size=config.block_size,
            algo=config.hash_algo,
            seed=config.hash_seed,
            vllm_version=config.vllm_version,
            random_bytes=random_bytes,
        )
        self.needs_tokens = publish or config.keep_tokens or self.identity.needs_tokens
        """Whether anybody looks at the token ids of completed blocks."""
        self.tiers: OffloadEngine | None = None
        if tiers is not None:
            if not (config.keep_tokens and config.enable_prefix_caching):
                raise EngineConfigError("lower tiers need enable_prefix_caching and keep_tokens")
            self.tiers = OffloadEngine(tiers, self.recorder, disk_link=disk_link)
            self.recorder.hash_only = tiers.events == "hash_only"
        manager = BlockManager(config, self.pool, self.identity, self.recorder, self.tiers)
        self.manager = manager
        self.scheduler = Scheduler(config, manager, executor)
        self._live: dict[str, Sequence] = {}
        self._pipeline: deque[Batch] = deque()
        self.ended = False
        """A request ended since the last schedule: vLLM runs one more (possibly empty) step to say so."""
        self._notices: list[RequestOutput] = []
        """Ends that no batch reports: aborts and refusals by the executor."""
        self._aborts_during: list[str] = []
        self._preempted: list[str] = []
        """Preempted by a reset since the last step."""
        self._sampled: list[Sequence] = []
        """Sequences that got a token in the last step."""
        self._draining = False
        self.counts = Counters()
        self._lockstep = Lockstep(self)

    # --- requests

    def add_request(self, request: Request) -> None:
        """Queue a request, or raise a RequestRefusedError and change nothing."""
        try:
            self._check(request)
        except Exception:
            self.counts.refused += 1
            raise
        config = self.config
        prompt = len(request.prompt_token_ids)
        eos = config.eos_token_id if request.eos_token_id is None else request.eos_token_id
        stops = set(request.stop_token_ids)
        if not request.ignore_eos:
            stops.add(eos)
        limit = min(request.max_tokens, config.max_model_len - prompt)
        self.counts.requests += 1
        seq = Sequence(request, limit=limit, stops=frozenset(stops), ticket=self.counts.requests)
        self._live[request.request_id] = seq
        self.scheduler.waiting.push(seq)
        self._lockstep.arrived()

    def abort(self, request_id: str, *, during_step: bool = False) -> bool:
        """End a request in whatever state it is; False if there is none. Its blocks are free at once.

        `during_step`: takes effect inside the next step, after its batch was chosen (an abort that arrives while the
        model runs).
        """
        if during_step:
            self._aborts_during.append(request_id)
            return request_id in self._live
        seq = self._live.get(request_id)
        if seq is None:
            return False
        self._lockstep.leave()
        self.scheduler.remove(seq)
        self.end(seq, "abort")
        self._notices.append(_output(seq, [], "abort"))
        return True

    def drain(self) -> None:
        """Refuse new requests from now on; those already here go on."""
        self._draining = True

    def pause(self, level: str | None) -> None:
        """`new`: admit nobody; `all`: schedule nothing; None: go on."""
        self._lockstep.leave()
        self.scheduler.paused = level

    @property
    def paused(self) -> str | None:
        """The level given to `pause`."""
        return self.scheduler.paused

    def request_ids(self) -> list[str]:
        """Live requests, oldest first."""
        return list(self._live)

    def has_work(self) -> bool:
        """Whether `step` has anything to do; an end not yet reported counts (vLLM runs a step for it)."""
        scheduler = self.scheduler
        if self.ended or self._pipeline or self._notices:
            return True
        if scheduler.paused == "all":
            return False
        return bool(scheduler.running) or (scheduler.paused is None and scheduler.queued > 0)

    def next_deadline(self) -> float | None:
        """When a transfer of a lower tier completes next; None if none is under way."""
        return None if self.tiers is None else self.tiers.earliest_pending_deadline()

    # --- a step

    def step(self, now: float = 0.0) -> StepResult:
        """One engine-core call: schedule a batch, take an output (this batch's, or the one before it when async)."""
        self._lockstep.leave()
        self._sampled = []
        result = StepResult(self.counts.steps)
        self.recorder.step = self.counts.steps
        self.counts.steps += 1
        if self.tiers is not None:
            self.manager.now = now
            self.tiers.tick(now)
        ready = self._schedule(result)
        if ready is not None:
            for request_id in self._aborts_during:
                self.abort(request_id)
            self._aborts_during.clear()
            self._take_output(ready, result)
            result.events = self.recorder.take()
        elif self.recorder.tier_events:
            result.events = self.recorder.take()
        if self.tiers is not None and not result.scheduled and not any(b.chunks for b in self._pipeline):
            result.wait_until = self.tiers.earliest_pending_deadline()
        self._report_notices(result)
        result.free = self.pool.free
        return result

    def advance(self, now: float, until: float = math.inf, max_steps: int | None = None) -> Progress:
        """All steps that begin before `until` (or the first `max_steps`), one after the other without a pause.

        The same as calling `step`, but what only decodes is not looked at in every step, if the executor foresees
        where requests end (`stop_index`). Ends when there is no work or nothing can be done before a transfer ends.
        """
        progress = Progress(now=now)
        lockstep = self._lockstep
        while now < until and self.has_work() and (max_steps is None or progress.steps < max_steps):
            ready = lockstep.possible and self.scheduler.paused is None and not self._aborts_during
            if ready:
                if not lockstep.active:
                    lockstep.enter()
                limit = sys.maxsize if max_steps is None else max_steps - progress.steps
                end = lockstep.run(now, until, limit, progress)
                if end is not None:
                    now = end
                    continue
                lockstep.leave()
                lockstep.note_times(now)
            result = self.step(now)
            now += result.duration_s
            self._record(result, now, progress)
            if result.wait_until is not None:
                progress.wait_until = result.wait_until
                break
        return progress

    def _record(self, result: StepResult, now: float, progress: Progress) -> None:
        """Add an ordinary step to what an advance brought."""
        progress.steps += 1
        progress.now = now
        for seq in self._sampled:
            if len(seq.output) == 1:
                progress.first_tokens.append((seq.id, now))
            else:
                progress.gaps_us[int((now - seq.last_token_s) * 1e6 + 0.5)] += 1
            seq.last_token_s = now
        lengths = {seq.id: len(seq.output) for seq in self._sampled}
        for output in result.outputs:
            if output.finish_reason is not None:
                rid, reason = output.request_id, output.finish_reason
                cached, preempted = output.cached_tokens, output.preemptions
                progress.finished.append(Finish(rid, reason, now, lengths.get(rid, 0), cached, preempted))
        if result.events:
            progress.batches.append((now, result.events))

    def _schedule(self, result: StepResult) -> Batch | None:
        """Choose a batch if there is anything to choose from; the batch whose output is due now, if any."""
        scheduler = self.scheduler
        pipelined = self.config.is_async
        if self.ended or scheduler.running or scheduler.queued:
            self.ended = False
            batch = scheduler.schedule()
            for seq, reason in batch.failed:
                self.refuse(seq, reason)
            result.scheduled = [(seq.id, n) for seq, n in batch.chunks.items()]
            result.hits, result.resumed = batch.hits, batch.resumed
            result.preempted = self._preempted + batch.preempted
            self._preempted = []
            self.counts.scheduled(batch)
            if not pipelined:
                return batch
            self._pipeline.append(batch)
            busy = self.ended or scheduler.running or scheduler.queued
            if len(self._pipeline) < 2 and (batch.chunks or busy):
                return None
        return self._pipeline.popleft() if self._pipeline else None

    def _take_output(self, batch: Batch, result: StepResult) -> None:
        if not batch.chunks:
            return
        result.duration_s = self._batch_s(batch)
        error = self._run(batch, result)
        if error is not None:
            self._fail(batch, error, result)
            return
        stopped: set[Sequence] = set()
        sample = self.executor.sample
        for seq, tokens in batch.chunks.items():
            if seq.status is Status.FINISHED:
                continue
            seq.in_flight -= tokens
            stale = seq.stale > 0
            if stale:
                seq.stale -= tokens
                if seq.drop_stale:
                    continue
            index = batch.samples.get(seq)
            if index is None:
                continue
            token = sample(seq.request, index)
            reason = self._append(seq, token, stale=stale)
            result.outputs.append(_output(seq, [token], reason))
            self._sampled.append(seq)
            if reason is not None:
                result.finished.append((seq.id, reason))
                stopped.add(seq)
        self.counts.generation_tokens += len(result.outputs)
        self._retire(stopped)

    def _append(self, seq: Sequence, token: int, *, stale: bool) -> FinishReason | None:
        """Add an output token; why the sequence ends with it, if it does."""
        seq.output.append(token)
        seq.total += 1
        reason: FinishReason | None = None
        if token in seq.stops:
            reason = "stop"
        elif len(seq.output) >= seq.limit:
            reason = "length"
        if seq.placeholders and not stale:
            seq.placeholders -= 1
            if seq.status is Status.RUNNING:
                self.manager.cache(seq, seq.computed - seq.in_flight)
        if reason is not None:
            self.manager.release(seq)
        return reason

    def _retire(self, stopped: set[Sequence]) -> None:
        """Take ended sequences out of their queues."""
        if not stopped:
            return
        scheduler = self.scheduler
        for seq in stopped:
            if seq.status is not Status.RUNNING:
                scheduler.unqueue(seq)
            self.end(seq, "stop" if seq.output[-1] in seq.stops else "length")
        scheduler.running = [seq for seq in scheduler.running if seq not in stopped]

    # --- failures

    def _run(self, batch: Batch, result: StepResult) -> str | None:
        """Let the executor run the batch, again if it fails; why it failed for good, or None."""
        ids = [seq.id for seq in batch.chunks]
        for attempt in range(self.config.step_retries + 1):
            try:
                self.executor.begin_step(result.step, ids)
            except StepFailedError as error:
                self.counts.step_failures += 1
                if attempt == self.config.step_retries:
                    return str(error) or "step failed"
                result.duration_s += self._batch_s(batch)
            else:
                return None
        return None

    def _fail(self, batch: Batch, error: str, result: StepResult) -> None:
        """End every sequence of a failed step; blocks it announced were never computed and are taken back."""
        for seq in reversed(batch.chunks):
            if seq.status is Status.FINISHED:
                continue
            if seq.status is Status.RUNNING:
                self.manager.retract(seq, seq.computed - seq.in_flight)
            self.scheduler.remove(seq)
            self.end(seq, "error")
            result.finished.append((seq.id, "error"))
            result.outputs.append(_output(seq, [], "error", error=error))
        result.finished.reverse()
        result.outputs.reverse()

    def _batch_s(self, batch: Batch) -> float:
        if self.latency is None:
            return 0.0
        capacity = self.config.usable_blocks * self.config.block_size
        return self.latency.step_s(StepLoad(batch.prefill_tokens, batch.decode_seqs, batch.kv_tokens, capacity))

    # --- bookkeeping

    def _check(self, request: Request) -> None:
        config = self.config
        prompt = len(request.prompt_token_ids)
        if self._draining:
            raise DrainingError("the engine is shutting down")
        if request.request_id in self._live:
            raise DuplicateRequestError(f"request id {request.request_id!r} is in use")
        if prompt == 0:
            raise PromptEmptyError("the prompt has no tokens")
        if prompt >= config.max_model_len:
            raise PromptTooLongError(
                f"the prompt has {prompt} tokens, but at most {config.max_model_len - 1} are allowed "
                f"(max_model_len {config.max_model_len}, one token is left for the output)"
            )
        if request.max_tokens < 1:
            raise InvalidRequestError(f"max_tokens must be at least 1, got {request.max_tokens}")
        if request.lora is not None and not config.max_loras:
            raise UnknownLoraError(f"LoRA {request.lora.name!r}: this engine has no LoRA slots")
        if config.max_waiting is not None and self.scheduler.queued >= config.max_waiting:
            raise QueueFullError(f"the waiting queue is full ({config.max_waiting} requests)")

    def end(self, seq: Sequence, reason: FinishReason) -> None:
        """A sequence is over; its queue and its blocks are the caller's business."""
        seq.status = Status.FINISHED
        del self._live[seq.id]
        self.ended = True
        self.counts.finished[reason] = self.counts.finished.get(reason, 0) + 1

    def refuse(self, seq: Sequence, reason: str) -> None:
        """The executor does not take a sequence."""
        self.end(seq, "error")
        self._notices.append(_output(seq, [], "error", error=reason))

    def take_notices(self) -> list[RequestOutput]:
        """Ends that no batch reports, since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def _report_notices(self, result: StepResult) -> None:
        for output in self.take_notices():
            assert output.finish_reason is not None
            result.finished.append((output.request_id, output.finish_reason))
            result.outputs.append(output)

    def reset_prefix_cache(self, *, reset_running_requests: bool = False, reset_external: bool = False) -> bool:
        """Forget every cached block; False while blocks are held. The event goes out with the next step.

        `reset_running_requests` preempts everything that runs first; `reset_external` clears the lower tiers too. If
        they stay, their blocks are announced again: the event that says "all cleared" knows no tiers.
        """
        scheduler = self.scheduler
        self._lockstep.leave()
        if reset_running_requests:
            while scheduler.running:
                seq = scheduler.running.pop()
                scheduler.preempt(seq, drop_output=True)
                self._preempted.append(seq.id)
        if not self.pool.reset():
            return False
        self.recorder.cleared()
        if self.tiers is not None:
            if reset_external:
                self.tiers.clear()
            for medium, block in self.tiers.blocks():
                self.recorder.tier_stored(medium, [block])
        return True

    def blocks(self) -> Iterator[ResidentBlock]:
        """The resident blocks; parents and token ids only if the configuration keeps tokens."""
        content = self.recorder.content
        for h, copies in self.pool.contents():
            parent, tokens = content.get(h, (None, ()))
            yield ResidentBlock(h, parent, tuple(tokens), "GPU", 0, copies)
        if self.tiers is not None:
            group = None if self.recorder.hash_only else 0
            for medium, block in self.tiers.blocks():
                yield ResidentBlock(block.hash, block.parent, block.token_ids, medium, group, 1)

    def statistics(self) -> EngineStats:
        """Counters and gauges, frozen."""
        counts, scheduler, pool = self.counts, self.scheduler, self.pool
        total = self.config.usable_blocks
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
            stored_blocks=self.recorder.stored_blocks,
            removed_blocks=self.recorder.removed_blocks,
            finished=dict(counts.finished),
            running_loras=tuple(sorted({s.request.lora.name for s in scheduler.running if s.request.lora})),
            tiers=None if self.tiers is None else self.tiers.report(),
            waiting_loras=tuple(sorted({s.request.lora.name for s in scheduler.waiting if s.request.lora})),
        )


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


def _output(
    seq: Sequence, tokens: list[int], reason: FinishReason | None, *, error: str | None = None
) -> RequestOutput:
    stop = tokens[-1] if reason == "stop" and tokens and tokens[-1] in seq.request.stop_token_ids else None
    return RequestOutput(seq.id, tokens, reason, max(seq.cached_tokens, 0), stop, error, seq.preemptions)
