"""Many steps in one go: sequences that only decode advance together, and only what changes is touched.

While nothing but decoding happens to a sequence, its counters are a constant plus the number of steps. So it waits
for the steps in which its blocks change (`growth.py`) and for the one at which it ends. A step costs what changes in
it, the prompts in flight and the admissions, not the batch. Whatever these rules do not cover (no room, a budget that
does not reach everybody) is left to the ordinary step, with all counters written back first. Results are those of step
by step (a property test says so).
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
    """The decoding sequences of one state, advanced together."""

    def __init__(self, state: EngineState) -> None:
        self._state = state
        config = state.config
        self._size = config.block_size
        self._capacity = config.usable_blocks * config.block_size
        executor = state.executor
        plain = type(executor).begin_step is Executor.begin_step
        self.possible = plain and executor.ends_are_known and not config.is_async and state.tiers is None
        """Whether this engine can be advanced this way at all."""
        self.active = False
        self._tick = 0
        """Decode steps done together."""
        self._now = 0.0
        """When the last step was over."""
        self._members = 0
        self._kv = 0
        """Computed tokens of all members."""
        self._blocks = make_decode_blocks(state)
        self._finish: dict[int, list[tuple[int, Sequence]]] = defaultdict(list)
        self._prefilling: list[Sequence] = []
        self._last_member = -1
        """Order of the member that runs last, or of one that did."""
        self._stuck = False
        """The head of the queue did not fit, and nothing that could help it has happened since."""
        self._distinct = executor.outputs_are_distinct

    # --- entering and leaving

    def enter(self, now: float) -> None:
        """Take over the running sequences; one that the last step did not reach is not in step with the others yet."""
        self._now = now
        self._tick = self._members = self._kv = 0
        self._last_member = -1
        self._blocks.clear()
        self._finish.clear()
        self._prefilling = []
        self._stuck = False
        for seq in self._state.scheduler.running:
            if seq.total == seq.computed + 1 and seq.output and seq.last_token_s == now:
                self._join(seq)
            else:
                self._prefilling.append(seq)
        self.active = True

    def leave(self) -> None:
        """Write every member's counters back, and when its last token came; the ordinary step can go on from here."""
        if not self.active:
            return
        for entries in self._finish.values():
            for _order, seq in entries:
                self._blocks.sync(seq, self._tick)
                seq.last_token_s = self._now
        self.active = False

    def arrived(self) -> None:
        """Somebody has joined the queue: its head may be another."""
        self._stuck = False

    def _join(self, seq: Sequence) -> None:
        tick = self._tick
        seq.joined = tick
        last = min(self._state.executor.stop_index(seq.request), seq.limit - 1)
        ends = self._finish[tick + last - len(seq.output)]
        ends.append((seq.order, seq))
        if len(ends) > 1 and ends[-2][0] > seq.order:
            ends.sort(key=_by_order)
        self._blocks.join(seq, tick)
        self._members += 1
        self._kv += seq.computed
        self._last_member = max(self._last_member, seq.order)

    # --- a step

    def run(self, now: float, until: float, limit: int, progress: Progress) -> float | None:
        """At least one step from `now`; the time at which it is over, or None if the ordinary step has to do it.

        Steps in which nothing but decoding can happen follow each other here until one of them ends a sequence.
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
            # The first step also takes what a reset left behind.
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
                self._part(seq)
            self._retire([seq for _order, seq in ending], now, progress)
        return now

    def _step(self, now: float, progress: Progress) -> float | None:
        """One step with prompts or admissions in it."""
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
        """Chunks of the running prompts and the budget left; None if the budget does not simply reach everybody."""
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
            self._part(seq)
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

    def _part(self, seq: Sequence) -> None:
        """A member leaves: it has just received its last token."""
        self._blocks.sync(seq, self._tick)
        self._blocks.part(seq, self._tick)
        self._members -= 1
        self._kv -= seq.computed

    def _first_tokens(self, done: list[Sequence], now: float, progress: Progress) -> list[tuple[int, Sequence]]:
        """Sequences whose prompt (or recomputed sequence) is complete get a token, and decode from now on."""
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
                self._join(seq)
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
