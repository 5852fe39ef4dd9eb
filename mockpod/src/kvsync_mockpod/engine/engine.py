"""The engine: each call of `step(now)` is one call of vLLM's engine core, synchronous or scheduling one step ahead.

The engine owns no clock and never waits. `step` says how long its batch takes; the driver (a live pod or an offline
replay) lets that time pass before it delivers the outputs and publishes the events.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterator

from kvsync_mockpod.engine.api import Executor, LatencyModel, Request, ResidentBlock, StepResult
from kvsync_mockpod.engine.bulk_decode import BulkDecode
from kvsync_mockpod.engine.config import EngineConfig
from kvsync_mockpod.engine.errors import RequestRefusedError
from kvsync_mockpod.engine.hashing import BlockIdentity
from kvsync_mockpod.engine.outputs import OutputStage
from kvsync_mockpod.engine.progress import Finish, Progress
from kvsync_mockpod.engine.scheduler import Batch
from kvsync_mockpod.engine.state import EngineState
from kvsync_mockpod.engine.stats import EngineStats, take_statistics
from kvsync_mockpod.engine.tiers import BlockContext, Link, SourceBlock, StoredBlock, TierConfig
from kvsync_mockpod.engine.validation import check_request, make_sequence


class Engine:
    """A vLLM engine core without a model: scheduler, block table and transition log behind one `step`."""

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
        runs: bool = False,
        random_bytes: Callable[[int], bytes] | None = None,
    ) -> None:
        self.config = config
        self._state = state = EngineState(
            config,
            executor,
            latency,
            tiers=tiers,
            disk_link=disk_link,
            identity=identity,
            publish=publish,
            runs=runs,
            random_bytes=random_bytes,
        )
        self.log = state.log
        """Every block transition, numbered: the ground truth that published events are checked against."""
        self._scheduler = state.scheduler
        self._recorder = state.recorder
        self._tiers = state.tiers
        self._counts = state.counts
        self._pipeline: deque[Batch] = deque()
        self._aborts_during: list[str] = []
        self._preempted: list[str] = []
        """Sequences that a reset preempted since the last step."""
        self._draining = False
        self._outputs = OutputStage(state)
        self._bulk = BulkDecode(state)

    # --- requests

    def add_request(self, request: Request) -> None:
        """Put a request into the waiting queue.

        Raises:
            RequestRefusedError: the request is not accepted; the engine is unchanged.
        """
        try:
            check_request(
                request, self.config, live=self._state.live, queued=self._scheduler.queued, draining=self._draining
            )
        except RequestRefusedError:
            self._counts.refused += 1
            raise
        self._counts.requests += 1
        seq = make_sequence(request, self.config, self._counts.requests)
        self._state.live[request.request_id] = seq
        self._scheduler.waiting.push(seq)
        self._bulk.arrived()

    def abort(self, request_id: str, *, during_step: bool = False) -> bool:
        """End a request, whatever its state, and free its blocks at once; False if no request has this id.

        With `during_step` the abort takes effect inside the next step, after the batch was chosen. It stands for an
        abort that arrives while the model runs.
        """
        if during_step:
            self._aborts_during.append(request_id)
            return request_id in self._state.live
        seq = self._state.live.get(request_id)
        if seq is None:
            return False
        self._bulk.leave()
        self._scheduler.remove(seq)
        self._state.end(seq, "abort")
        self._state.notices.append(seq.make_output([], "abort"))
        return True

    def drain(self) -> None:
        """Refuse new requests from now on; accepted requests run to their end."""
        self._draining = True

    def pause(self, level: str | None) -> None:
        """Pause at level `new` (admit no request that holds no blocks) or `all` (schedule nothing); None resumes."""
        self._bulk.leave()
        self._scheduler.paused = level

    @property
    def paused(self) -> str | None:
        """The pause level in force, None if the engine is not paused."""
        return self._scheduler.paused

    def request_ids(self) -> list[str]:
        """Ids of the requests that have not ended, oldest first."""
        return list(self._state.live)

    def has_work(self) -> bool:
        """Whether `step` has anything to do, including an end that still has to be reported by a step of its own."""
        return bool(self._state.ended or self._pipeline or self._state.notices or self._scheduler.unfinished)

    def next_deadline(self) -> float | None:
        """Time at which the next transfer of a lower tier completes; None if no transfer is under way."""
        return None if self._tiers is None else self._tiers.earliest_pending_deadline()

    # --- a step

    def step(self, now: float = 0.0) -> StepResult:
        """Schedule one batch and take one output: that of this batch, or of the previous one with async scheduling."""
        result = self._step(now)
        for seq in self._outputs.sampled:
            seq.last_token_s = now + result.duration_s
        return result

    def _step(self, now: float) -> StepResult:
        self._bulk.leave()
        self._outputs.sampled = []
        result = StepResult(self._counts.steps)
        self._recorder.step = self._counts.steps
        self._counts.steps += 1
        if self._tiers is not None:
            self._state.manager.now = now
            self._tiers.tick(now)
        result.preempted, self._preempted = self._preempted, []
        ready = self._schedule(result)
        if ready is not None:
            for request_id in self._aborts_during:
                self.abort(request_id)
            self._aborts_during.clear()
            self._outputs.take(ready, result)
            result.events = self._recorder.take()
        elif self._recorder.tier_events:
            result.events = self._recorder.take()
        if self._tiers is not None and not result.scheduled and not any(b.chunks for b in self._pipeline):
            result.wait_until = self._tiers.earliest_pending_deadline()
        self._report_notices(result)
        result.free = self._state.pool.free
        return result

    def advance(self, now: float, until: float = math.inf, max_steps: int | None = None) -> Progress:
        """Run all steps that begin before `until` (at most `max_steps` of them), each beginning when the last one ends.

        The result equals that of calling `step` repeatedly. If the executor knows in advance where requests end
        (`stop_index`), sequences that only decode are advanced in bulk. Returns early when there is no work, or when
        nothing can be scheduled before a transfer ends.
        """
        progress = Progress(now=now)
        bulk = self._bulk
        while now < until and self.has_work() and (max_steps is None or progress.steps < max_steps):
            ready = bulk.possible and self._scheduler.paused is None and not self._aborts_during
            if ready:
                if not bulk.active:
                    bulk.enter(now)
                limit = sys.maxsize if max_steps is None else max_steps - progress.steps
                end = bulk.run(now, until, limit, progress)
                if end is not None:
                    now = end
                    continue
                bulk.leave()
            result = self._step(now)
            now += result.duration_s
            self._record(result, now, progress)
            if result.wait_until is not None:
                progress.wait_until = result.wait_until
                break
        return progress

    def _record(self, result: StepResult, now: float, progress: Progress) -> None:
        """Add the result of an ordinary step to `progress`."""
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
        """Choose a batch if there are sequences to schedule; returns the batch whose output is due now, if any."""
        scheduler = self._scheduler
        pipelined = self.config.is_async
        if self._state.ended or scheduler.unfinished:
            self._state.ended = False
            batch = scheduler.schedule()
            for seq, reason in batch.failed:
                self._state.refuse(seq, reason)
            result.scheduled = [(seq.id, n) for seq, n in batch.chunks.items()]
            result.hits, result.resumed = batch.hits, batch.resumed
            result.preempted += batch.preempted
            self._counts.scheduled(batch)
            if not pipelined:
                return batch
            self._pipeline.append(batch)
            if len(self._pipeline) < 2 and (batch.chunks or self._state.ended or scheduler.unfinished):
                return None
        return self._pipeline.popleft() if self._pipeline else None

    def _report_notices(self, result: StepResult) -> None:
        for output in self._state.take_notices():
            assert output.finish_reason is not None
            result.finished.append((output.request_id, output.finish_reason))
            result.outputs.append(output)

    def reset_prefix_cache(self, *, reset_running_requests: bool = False, reset_external: bool = False) -> bool:
        """Forget every cached block; returns False and changes no block while requests hold any.

        The AllBlocksCleared event is published with the next step. `reset_running_requests` first preempts all running
        requests. `reset_external` clears the lower tiers as well; otherwise their blocks are announced again, because
        AllBlocksCleared applies to every tier.
        """
        scheduler = self._scheduler
        self._bulk.leave()
        if reset_running_requests:
            while scheduler.running:
                seq = scheduler.running.pop()
                scheduler.preempt(seq, drop_output=True)
                self._preempted.append(seq.id)
        if not self._state.pool.reset():
            return False
        self._recorder.cleared()
        if self._tiers is not None:
            if reset_external:
                self._tiers.clear()
            self._tiers.announce()
        return True

    def lose_blocks(self, now: float) -> None:
        """Lose every block and every event that was not taken, as when the process ends; requests start again.

        Copies between the tiers are lost with their source, whether they are under way or wait. Nothing is announced:
        a process that ends does not say so.
        """
        scheduler = self._scheduler
        self._bulk.leave()
        while scheduler.running:
            seq = scheduler.running.pop()
            scheduler.preempt(seq, drop_output=True)
            self._preempted.append(seq.id)
        scheduler.forget_progress()
        if self._tiers is not None:
            self._tiers.lose(now)
        emptied = self._state.pool.reset()
        assert emptied, "a block is held by no sequence and by no copy"
        self._recorder.lose()

    def blocks(self) -> Iterator[ResidentBlock]:
        """The resident blocks of all tiers; parents and token ids are present only if `keep_tokens` is set."""
        self._bulk.leave()
        content = self._recorder.content
        for h, copies in self._state.pool.contents():
            parent, tokens, context = content.get(h, (None, (), None))
            yield _resident(SourceBlock(h, parent, tuple(tokens), context), "GPU", 0, copies)
        if self._tiers is not None:
            group = None if self._recorder.hash_only else 0
            for medium, block in self._tiers.blocks():
                yield _resident(block, medium, group, block.copies)

    def statistics(self) -> EngineStats:
        """A frozen snapshot of the counters and gauges."""
        self._bulk.leave()
        return take_statistics(self._state)


def _resident(block: SourceBlock | StoredBlock, medium: str, group: int | None, copies: int) -> ResidentBlock:
    context = block.context or BlockContext()
    return ResidentBlock(
        hash=block.hash,
        parent=block.parent,
        token_ids=block.token_ids,
        medium=medium,
        group_idx=group,
        copies=copies,
        lora_name=context.lora_name,
        extra_keys=context.extra_keys,
        lora_id=context.lora_id,
    )
