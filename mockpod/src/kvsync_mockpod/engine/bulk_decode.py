"""Advances decode-only sequences in bulk, many steps at a time.

While a sequence only decodes, each of its counters is a constant plus the number of steps. It is therefore registered
for the steps in which its blocks change (`decode_blocks.py`) and for the step in which it ends. The cost of a step
depends on what changes in it, on the prompts in flight and on admissions, but not on the batch size. Situations that
these rules do not cover, such as a lack of free blocks or a token budget too small for all sequences, are left to the
ordinary step after all counters have been written back. The results equal those of single steps; a property test checks
it.
"""

from collections import defaultdict
from operator import itemgetter

from kvsync_mockpod.engine.api import Executor, FinishReason, StepLoad
from kvsync_mockpod.engine.decode_blocks import make_decode_blocks
from kvsync_mockpod.engine.progress import Finish, Progress
from kvsync_mockpod.engine.scheduler import Batch
from kvsync_mockpod.engine.sequence import Sequence, Status
from kvsync_mockpod.engine.state import EngineState

_by_order = itemgetter(0)


class BulkDecode:
    """The decoding sequences of one engine ("members" below), advanced together."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        config = state.config
        self._size = config.block_size
        self._capacity = config.usable_blocks * config.block_size
        executor = state.executor
        plain = type(executor).begin_step is Executor.begin_step
        self.possible = plain and executor.ends_are_known and not config.is_async and state.tiers is None
        """Whether this engine's configuration and executor permit bulk decoding at all."""
        self.active = False
        self._tick = 0
        """Decode steps done together."""
        self._now = 0.0
        """Time at which the last step ended."""
        self._members = 0
        self._kv = 0
        """Computed tokens of all members."""
        self._blocks = make_decode_blocks(state)
        self._finish: dict[int, list[tuple[int, Sequence]]] = defaultdict(list)
        self._prefilling: list[Sequence] = []
        self._last_member = -1
        """Largest running position of any member, including members that have left."""
        self._stuck = False
        """The head of the queue did not fit, and nothing has changed since that could let it fit."""
        self._distinct = executor.outputs_are_distinct

    def enter(self, now: float) -> None:
        """Take over the running sequences.

        A sequence that received no token in the last step is treated as a prompt until it receives one.
        """
        self._now = now
        self._tick = self._members = self._kv = 0
        self._last_member = -1
        self._blocks.clear()
        self._finish.clear()
        self._prefilling = []
        self._stuck = False
        for seq in self._state.scheduler.running:
            if seq.total == seq.computed + 1 and seq.output and seq.last_token_s == now:
                self._add_member(seq)
            else:
                self._prefilling.append(seq)
        self.active = True

    def leave(self) -> None:
        """Write back every member's counters and the time of its last token, so that the ordinary step can continue."""
        if not self.active:
            return
        for entries in self._finish.values():
            for _order, seq in entries:
                self._blocks.sync(seq, self._tick)
                seq.last_token_s = self._now
        self.active = False

    def arrived(self) -> None:
        """Note that the waiting queue has grown, so that its head may be a different request."""
        self._stuck = False

    def _add_member(self, seq: Sequence) -> None:
        tick = self._tick
        seq.synced_tick = tick
        last = min(self._state.executor.stop_index(seq.request), seq.limit - 1)
        ends = self._finish[tick + last - len(seq.output)]
        ends.append((seq.order, seq))
        if len(ends) > 1 and ends[-2][0] > seq.order:
            ends.sort(key=_by_order)
        self._blocks.add(seq, tick)
        self._members += 1
        self._kv += seq.computed
        self._last_member = max(self._last_member, seq.order)

    def run(self, now: float, until: float, limit: int, progress: Progress) -> float | None:
        """Do at least one step from `now`; steps that only decode are repeated until one of them ends a sequence.

        Returns the time at which the last step ends, or None if the ordinary step has to do the work.
        """
        scheduler = self._state.scheduler
        full = len(scheduler.running) >= self._state.config.max_num_seqs
        if self._members and not self._prefilling and (full or self._stuck or not scheduler.queued):
            ended = self._decode(now, until, limit, progress)
            if ended is not None:
                return ended
        return self._step(now, progress)

    def _decode(self, now: float, until: float, limit: int, progress: Progress) -> float | None:
        state, members, blocks = self._state, self._members, self._blocks
        if members > state.config.max_num_batched_tokens:
            return None
        recorder, latency, gaps, due, size = state.recorder, state.latency, progress.gaps_us, blocks.due, self._size
        tick = first = self._tick
        next_end = min(self._finish)
        stop = min(next_end + 1, first + limit)
        numbered = state.counts.steps - first
        duration = 0.0
        load = StepLoad(0, members, self._kv, self._capacity)
        while now < until and tick < stop:
            touched = tick % size in due
            if touched:
                if blocks.fresh(tick) > state.pool.free:
                    break
                recorder.step = numbered + tick
                blocks.grow(tick, ())
            load.active_kv_tokens += members
            if latency is not None:
                duration = latency.step_s(load)
                now += duration
            gaps[int(duration * 1e6 + 0.5)] += members
            tick += 1
            # The first step also publishes events that a cache reset left behind.
            if (touched or tick - first == 1) and (events := recorder.take()):
                progress.batches.append((now, events))
        steps = tick - first
        if not steps:
            return None
        self._tick, self._kv, self._now = tick, load.active_kv_tokens, now
        state.ended = False
        state.counts.decoded(steps, members)
        progress.steps += steps
        progress.now = now
        if tick > next_end:
            ending = self._finish.pop(next_end)
            for _order, seq in ending:
                self._remove_member(seq)
            self._retire([seq for _order, seq in ending], now, progress)
        return now

    def _step(self, now: float, progress: Progress) -> float | None:
        """Do one step that contains prompts or admissions."""
        state, scheduler = self._state, self._state.scheduler
        pool = state.pool
        threshold = scheduler.prefill_threshold()
        plan = self._plan(threshold)
        if plan is None:
            return None
        chunks, budget = plan
        size = self._size
        fresh = self._blocks.fresh(self._tick)
        for seq, tokens in chunks:
            fresh += max(-(-(seq.computed + tokens) // size) - len(seq.table), 0)
        if fresh > pool.free:
            return None
        state.recorder.step = state.counts.steps
        state.ended = False
        self._blocks.grow(self._tick, chunks)
        batch = Batch(chunks=dict(chunks))
        if scheduler.queued and not (self._stuck and not chunks):
            self._admit(batch, budget, threshold)
        return self._output(batch, now, progress)

    def _plan(self, threshold: int) -> tuple[list[tuple[Sequence, int]], int] | None:
        """Chunks of the running prompts and the remaining budget.

        None if the budget does not suffice for all sequences.
        """
        budget = self._state.config.max_num_batched_tokens - self._members
        if budget < 0:
            return None
        chunks = []
        for seq in self._prefilling:
            tokens = seq.total - seq.computed
            if 0 < threshold < tokens:
                tokens = threshold
            if tokens > budget:
                if seq.order < self._last_member:
                    return None
                tokens = budget
            if tokens:
                chunks.append((seq, tokens))
                budget -= tokens
        return chunks, budget

    def _admit(self, batch: Batch, budget: int, threshold: int) -> None:
        scheduler = self._state.scheduler
        before = len(scheduler.running)
        scheduler.schedule_waiting(batch, budget, threshold)
        for seq, reason in batch.failed:
            self._state.refuse(seq, reason)
        for seq in scheduler.running[before:]:
            self._prefilling.append(seq)
        tried = budget > 0 and before < self._state.config.max_num_seqs and not scheduler.deferred
        self._stuck = self._distinct and tried and len(scheduler.running) == before

    def _output(self, batch: Batch, now: float, progress: Progress) -> float:
        state = self._state
        members = self._members
        prefill, decode, kv, done = 0, members, self._kv + members, []
        for seq, tokens in batch.chunks.items():
            seq.computed += tokens
            kv += seq.computed
            if tokens == 1 and seq.computed > seq.prompt_len:
                decode += 1
            else:
                prefill += tokens
            if seq.computed >= seq.total:
                done.append(seq)
        duration = 0.0
        if state.latency is not None and (members or batch.chunks):
            duration = state.latency.step_s(StepLoad(prefill, decode, kv, self._capacity))
        self._now = now = now + duration
        counts = state.counts
        counts.steps += 1
        counts.scheduled(batch)
        counts.scheduled_tokens += members
        counts.generation_tokens += members + len(done)
        if members:
            progress.gaps_us[int(duration * 1e6 + 0.5)] += members
        ending = self._finish.pop(self._tick, [])
        self._tick += 1
        self._kv += members
        finished: list[tuple[int, Sequence]] = []
        for order, seq in ending:
            self._remove_member(seq)
            finished.append((order, seq))
        if done:
            self._prefilling = [seq for seq in self._prefilling if seq.computed < seq.total]
            finished += self._first_tokens(done, now, progress)
            finished.sort(key=_by_order)
        if finished:
            self._retire([seq for _order, seq in finished], now, progress)
        progress.steps += 1
        progress.now = now
        events = state.recorder.take()
        if events:
            progress.batches.append((now, events))
        for output in state.take_notices():
            assert output.finish_reason is not None
            progress.finished.append(Finish(output.request_id, output.finish_reason, now, 0, output.cached_tokens, 0))
        return now

    def _remove_member(self, seq: Sequence) -> None:
        """Remove a member that has just received its last token."""
        self._blocks.sync(seq, self._tick)
        self._blocks.remove(seq, self._tick)
        self._members -= 1
        self._kv -= seq.computed

    def _first_tokens(self, done: list[Sequence], now: float, progress: Progress) -> list[tuple[int, Sequence]]:
        """Give a token to each sequence that has computed all its known tokens; from then on it decodes."""
        executor, finished = self._state.executor, []
        for seq in done:
            index = len(seq.output)
            seq.output.append(executor.sample(seq.request, index))
            seq.total += 1
            if index == 0:
                progress.first_tokens.append((seq.id, now))
            else:
                progress.gaps_us[int((now - seq.last_token_s) * 1e6 + 0.5)] += 1
            if index >= min(executor.stop_index(seq.request), seq.limit - 1):
                finished.append((seq.order, seq))
            else:
                self._add_member(seq)
        return finished

    def _retire(self, seqs: list[Sequence], now: float, progress: Progress) -> None:
        state, scheduler = self._state, self._state.scheduler
        for seq in seqs:
            state.manager.release(seq)
            reason: FinishReason = "stop" if seq.output[-1] in seq.stops else "length"
            state.end(seq, reason)
            progress.finished.append(
                Finish(seq.id, reason, now, len(seq.output), max(seq.cached_tokens, 0), seq.preemptions)
            )
        scheduler.running = [seq for seq in scheduler.running if seq.status is not Status.FINISHED]
        self._stuck = False
