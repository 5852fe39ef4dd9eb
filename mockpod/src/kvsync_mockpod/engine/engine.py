"""The engine: one `step(now)` is one call of vLLM's engine core, synchronous or one step ahead.

It owns no clock and waits for nothing: `step` says how long the batch takes, and the driver (a live pod or an offline
replay) lets that time pass before it delivers the outputs and publishes the events.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator

from kvsync_mockpod.engine.api import (
    Executor,
    FinishReason,
    LatencyModel,
    Request,
    RequestOutput,
    ResidentBlock,
    StepResult,
)
from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.counters import Counters, take_statistics
from kvsync_mockpod.engine.errors import EngineConfigError, RequestRefusedError
from kvsync_mockpod.engine.hashing import BlockIdentity, HashedIdentity
from kvsync_mockpod.engine.intake import check_request, make_sequence
from kvsync_mockpod.engine.lockstep import Lockstep
from kvsync_mockpod.engine.log import TransitionLog
from kvsync_mockpod.engine.manager import BlockManager
from kvsync_mockpod.engine.outputs import OutputStage, make_output
from kvsync_mockpod.engine.pool import BlockPool
from kvsync_mockpod.engine.progress import Finish, Progress
from kvsync_mockpod.engine.recorder import Recorder
from kvsync_mockpod.engine.scheduler import Batch, Scheduler
from kvsync_mockpod.engine.sequence import Sequence, Status
from kvsync_mockpod.engine.stats import EngineStats
from kvsync_mockpod.engine.tiers import Link, OffloadEngine, TierConfig


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
        merge_removed: bool = False,
        random_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self.config = config
        self.executor = executor
        self.latency = latency
        self.log = TransitionLog(config.log_entries)
        self.recorder = Recorder(config.block_size, self.log, publish=publish, keep_tokens=config.keep_tokens)
        self.recorder.merge_removed = merge_removed
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
        self._draining = False
        self.counts = Counters()
        self._outputs = OutputStage(self)
        self._lockstep = Lockstep(self)

    # --- requests

    def add_request(self, request: Request) -> None:
        """Queue a request, or raise a RequestRefusedError and change nothing."""
        try:
            check_request(request, self.config, live=self._live, queued=self.scheduler.queued, draining=self._draining)
        except RequestRefusedError:
            self.counts.refused += 1
            raise
        self.counts.requests += 1
        seq = make_sequence(request, self.config, self.counts.requests)
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
        self._notices.append(make_output(seq, [], "abort"))
        return True

    def drain(self) -> None:
        """Refuse new requests from now on; those already here go on."""
        self._draining = True

    def pause(self, level: str | None) -> None:
        """`new`: admit nobody who holds no blocks yet; `all`: schedule nothing; None: go on."""
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
        return bool(self.ended or self._pipeline or self._notices or self.scheduler.unfinished)

    def next_deadline(self) -> float | None:
        """When a transfer of a lower tier completes next; None if none is under way."""
        return None if self.tiers is None else self.tiers.earliest_pending_deadline()

    # --- a step

    def step(self, now: float = 0.0) -> StepResult:
        """One engine-core call: schedule a batch, take an output (this batch's, or the one before it when async)."""
        result = self._step(now)
        for seq in self._outputs.sampled:
            seq.last_token_s = now + result.duration_s
        return result

    def _step(self, now: float) -> StepResult:
        self._lockstep.leave()
        self._outputs.sampled = []
        result = StepResult(self.counts.steps)
        self.recorder.step = self.counts.steps
        self.counts.steps += 1
        if self.tiers is not None:
            self.manager.now = now
            self.tiers.tick(now)
        result.preempted, self._preempted = self._preempted, []
        ready = self._schedule(result)
        if ready is not None:
            for request_id in self._aborts_during:
                self.abort(request_id)
            self._aborts_during.clear()
            self._outputs.take(ready, result)
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
                    lockstep.enter(now)
                limit = sys.maxsize if max_steps is None else max_steps - progress.steps
                end = lockstep.run(now, until, limit, progress)
                if end is not None:
                    now = end
                    continue
                lockstep.leave()
            result = self._step(now)
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
        for seq in self._outputs.sampled:
            if len(seq.output) == 1:
                progress.first_tokens.append((seq.id, now))
            else:
                progress.gaps_us[int((now - seq.last_token_s) * 1e6 + 0.5)] += 1
            seq.last_token_s = now
        lengths = {seq.id: len(seq.output) for seq in self._outputs.sampled}
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
        if self.ended or scheduler.unfinished:
            self.ended = False
            batch = scheduler.schedule()
            for seq, reason in batch.failed:
                self.refuse(seq, reason)
            result.scheduled = [(seq.id, n) for seq, n in batch.chunks.items()]
            result.hits, result.resumed = batch.hits, batch.resumed
            result.preempted += batch.preempted
            self.counts.scheduled(batch)
            if not pipelined:
                return batch
            self._pipeline.append(batch)
            if len(self._pipeline) < 2 and (batch.chunks or self.ended or scheduler.unfinished):
                return None
        return self._pipeline.popleft() if self._pipeline else None

    # --- bookkeeping

    def end(self, seq: Sequence, reason: FinishReason) -> None:
        """A sequence is over; its queue and its blocks are the caller's business."""
        seq.status = Status.FINISHED
        del self._live[seq.id]
        self.ended = True
        self.counts.finished[reason] = self.counts.finished.get(reason, 0) + 1

    def refuse(self, seq: Sequence, reason: str) -> None:
        """The executor does not take a sequence."""
        self.end(seq, "error")
        self._notices.append(make_output(seq, [], "error", error=reason))

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
        self._lockstep.leave()
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
        self._lockstep.leave()
        return take_statistics(self)
