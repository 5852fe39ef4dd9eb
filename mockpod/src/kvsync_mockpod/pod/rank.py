"""The live driver of one engine: steps it on the event loop, publishes its events and delivers its tokens.

The engine computes a step at once. The driver then waits `duration_s * time_scale` before it publishes the events and
delivers the outputs. It follows an absolute schedule, so that the inaccuracy of timers and the run time of Python do
not accumulate. Without a latency model the driver yields to the event loop every two milliseconds, so that HTTP
requests are served while the engine is busy.
"""

import asyncio
from collections.abc import Callable
from itertools import islice

from kvsync_mockpod.engine import Engine, LogEntry, StepResult
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.metrics import EngineMetrics
from kvsync_mockpod.pod.generation import Generation, LiveRequest, Mailbox
from kvsync_mockpod.publish import EventPublisher

_log = get_logger(__name__)
_LAST_STEPS = 8
"""Maximum number of steps at shutdown that publish the events of the last batch; an engine that schedules ahead needs
two.
"""
_SLICE_S = 0.002
"""Without latency: how long steps follow one another before the event loop serves HTTP again, in seconds."""
_CATCH_UP_S = 0.005
"""Largest delay behind the schedule, in seconds, that a rank makes up for.

A larger delay is not made up, because the machine is too slow.
"""


class Rank:
    """One data-parallel rank: engine, publisher, metrics and the requests in flight."""

    def __init__(
        self,
        rank: int,
        engine: Engine,
        metrics: EngineMetrics,
        clock_s: Callable[[], float],
        time_scale: float,
        build_publisher: "Callable[[Rank], EventPublisher]",
    ) -> None:
        self.rank = rank
        self.engine = engine
        self.publisher = build_publisher(self)
        self.metrics = metrics
        self._clock_s = clock_s
        self._time_scale = time_scale
        self._origin_s = clock_s()
        self._generations: dict[str, Generation] = {}
        self._unscheduled: set[str] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._stepping = False
        self._reset_unpublished = False
        self._losses = 0
        """How often all blocks were lost; the events of a step that was under way then are not published."""
        self.dead: str | None = None
        """The reason why the engine stopped permanently, None while it runs."""

    @property
    def load(self) -> int:
        """Number of requests in flight."""
        return len(self._generations)

    @property
    def quiet(self) -> bool:
        """Whether the engine is idle and no event is left to publish."""
        return not (self._stepping or self._reset_unpublished or self.publisher.pending or self.engine.has_work())

    def engine_now(self) -> float:
        """Engine time in seconds: the time since start, divided by the time scale."""
        return (self._clock_s() - self._origin_s) / self._time_scale

    def start(self) -> None:
        """Start to step the engine on the running event loop."""
        loop = asyncio.get_running_loop()
        self.publisher.start(loop)
        self._task = loop.create_task(self._run(), name=f"rank-{self.rank}")

    def submit(self, request: LiveRequest, index: int, mailbox: Mailbox) -> Generation:
        """Put a request into the waiting queue.

        Raises:
            RequestRefusedError: the engine does not accept the request and is unchanged.
        """
        request.arrival_s = self.engine_now()
        self.engine.add_request(request)
        generation = Generation(request, self.rank, index, mailbox, self._clock_s())
        self._generations[request.request_id] = generation
        self._unscheduled.add(request.request_id)
        self._notify()
        return generation

    def abort(self, generation: Generation, reason: str = "abort") -> None:
        """End a request in any state; does nothing if it has ended already."""
        request_id = generation.request.request_id
        if self._generations.pop(request_id, None) is None:
            return
        self._unscheduled.discard(request_id)
        self.engine.abort(request_id)
        self._finish(generation, reason, self._clock_s())
        generation.mailbox.put(generation, [], final=True)
        self._notify()

    def abort_all(self) -> int:
        """End every request in flight; returns their number."""
        generations = list(self._generations.values())
        for generation in generations:
            self.abort(generation)
        return len(generations)

    def log_position(self) -> int:
        """The number that the next transition log entry will have."""
        return self.engine.log.next

    def lose_blocks(self) -> None:
        """Empty the cache as a crash does; running requests start again."""
        self._losses += 1
        self.engine.lose_blocks(self.engine_now())
        self._reset_unpublished = False
        self._notify()

    def log_since(self, since: int, limit: int) -> list[LogEntry]:
        """At most `limit` transition log entries, from number `since` on."""
        return list(islice(self.engine.log.since(since), limit))

    def pause(self, *, admit_only: bool = False) -> None:
        """Stop scheduling, or with `admit_only` only stop admissions; requests in flight keep their state."""
        self.engine.pause("new" if admit_only else "all")
        self._notify()

    def resume(self) -> None:
        """Schedule again after a pause."""
        self.engine.pause(None)
        self._notify()

    def reset_prefix_cache(self, *, reset_running_requests: bool, reset_external: bool) -> bool:
        """Forget every cached block; returns False while requests hold blocks.

        As in vLLM, the event is published with the next step: an idle engine publishes it with its next request.
        """
        done = self.engine.reset_prefix_cache(
            reset_running_requests=reset_running_requests, reset_external=reset_external
        )
        self._reset_unpublished = self._reset_unpublished or done
        self._notify()
        return done

    def _notify(self) -> None:
        self._idle.clear()
        self._wake.set()

    async def wait_idle(self) -> None:
        """Return when the engine has nothing to do. The event of a cache reset may still wait for the next request."""
        while self.dead is None and (self._stepping or self.engine.has_work()):
            self._idle.clear()
            await self._idle.wait()

    async def stop(self) -> None:
        """Stop stepping, publish the events of the last batch and close the sockets."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for _ in range(_LAST_STEPS):
            if self.dead is not None or not self.engine.has_work():
                break
            self.publisher.publish(self.engine.step(self.engine_now()).events)
        self.publisher.close()

    async def _run(self) -> None:
        try:
            await self._step_for_ever()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  (whatever broke the engine: the pod reports itself dead)
            self.dead = f"{type(error).__name__}: {error}"
            _log.exception("engine_failed", rank=self.rank)
            for generation in list(self._generations.values()):
                generation.error = "the engine stopped after an internal error"
                self._generations.pop(generation.request.request_id)
                self._finish(generation, "error", self._clock_s())
                generation.mailbox.put(generation, [], final=True)
            self._idle.set()

    async def _step_for_ever(self) -> None:
        clock_s, scale, engine = self._clock_s, self._time_scale, self.engine
        yielded = target = clock_s()
        wait_until: float | None = None
        while True:
            if wait_until is not None or not self.engine.has_work():
                due = await self._wait_for_work(wait_until)
                wait_until = None
                yielded = target = clock_s()
                if not due and not self.engine.has_work():
                    continue
            now = clock_s()
            losses = self._losses
            self._stepping = True
            try:
                result = engine.step((now - self._origin_s) / scale)
                duration = result.duration_s * scale
                if duration > 0.0:
                    target = max(target, now - _CATCH_UP_S) + duration
                    delay = target - clock_s()
                    await asyncio.sleep(max(delay, 0.0))
                if losses != self._losses:
                    result.events.clear()
                self._complete(result)
                wait_until = result.wait_until if losses == self._losses else None
            finally:
                self._stepping = False
            if duration <= 0.0 and clock_s() - yielded >= _SLICE_S:
                await asyncio.sleep(0)
                yielded = target = clock_s()

    async def _wait_for_work(self, until: float | None) -> bool:
        """Wait for a request, or until a lower tier's transfer ends at `until` (engine time).

        Returns True if one ended.
        """
        if not self.engine.has_work():
            self._idle.set()
        self._wake.clear()
        deadline = self.engine.next_deadline() if until is None else until
        if deadline is None:
            await self._wake.wait()
            return False
        timeout = (deadline - self.engine_now()) * self._time_scale
        try:
            await asyncio.wait_for(self._wake.wait(), max(timeout, 0.0))
        except TimeoutError:
            return True
        return False

    def _complete(self, result: StepResult) -> None:
        """Publish the events of a step, then deliver its outputs."""
        if result.events:
            self.publisher.publish(result.events)
            self._reset_unpublished = False
        now = self._clock_s()
        if self._unscheduled:
            self._note_scheduled(result, now)
        if result.scheduled:
            self.metrics.iteration.observe(sum(count for _, count in result.scheduled))
        generations = self._generations
        itl = self.metrics.itl
        for output in result.outputs:
            generation = generations.get(output.request_id)
            if generation is None:
                continue
            tokens = output.new_token_ids
            if tokens:
                if generation.last_token_s is None:
                    generation.first_token_s = now
                    generation.cached_tokens = output.cached_tokens
                    self.metrics.ttft.observe(now - generation.arrived_s)
                else:
                    itl.observe((now - generation.last_token_s) / len(tokens), len(tokens))
                generation.last_token_s = now
                generation.output_tokens += len(tokens)
            reason = output.finish_reason
            if reason is not None:
                del generations[output.request_id]
                self._unscheduled.discard(output.request_id)
                generation.cached_tokens = output.cached_tokens
                generation.preemptions = output.preemptions
                generation.stop_token_id = output.stop_token_id
                generation.error = output.error
                self._finish(generation, reason, now)
            generation.mailbox.put(generation, tokens, final=reason is not None)

    def _note_scheduled(self, result: StepResult, now: float) -> None:
        for request_id, _ in result.scheduled:
            if request_id in self._unscheduled:
                self._unscheduled.discard(request_id)
                generation = self._generations.get(request_id)
                if generation is not None:
                    generation.scheduled_s = now - result.duration_s * self._time_scale

    def _finish(self, generation: Generation, reason: str, now: float) -> None:
        generation.finish_reason = reason
        metrics = self.metrics
        counter = metrics.success.get(reason)
        if counter is not None:
            counter.inc()
        metrics.e2e.observe(now - generation.arrived_s)
        metrics.prompt_lengths.observe(generation.prompt_tokens)
        metrics.output_lengths.observe(generation.output_tokens)
        metrics.params_max_tokens.observe(generation.request.max_tokens)
        metrics.preemptions.observe(generation.preemptions)
        scheduled, first = generation.scheduled_s, generation.first_token_s
        if scheduled is None:
            return
        metrics.queue.observe(max(scheduled - generation.arrived_s, 0.0))
        metrics.inference.observe(now - scheduled)
        if first is None:
            return
        metrics.prefill.observe(first - scheduled)
        metrics.decode.observe(now - first)
        if generation.output_tokens > 1:
            metrics.tpot.observe((now - first) / (generation.output_tokens - 1))
