"""One engine in virtual time: advances it, submits requests to it, and turns its progress into records."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from kvsync_mockpod.engine import Engine, Progress, Request, RequestRefusedError
from kvsync_mockpod.offline.result import RequestRecord, WorkerRecord


class Worker:
    """An engine and the time up to which it has worked.

    `now` may be later than the time of the replay; the engine is then in the middle of a step.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = 0.0
        self.in_flight = 0
        self.tokens_in_flight = 0
        self.gaps_us: dict[int, int] = {}
        self.published: deque[tuple[float, list[Any]]] = deque()
        """Event batches that the router has not observed yet, in order of time."""
        self.ended: list[RequestRecord] = []
        """Requests that have ended but are not settled yet, in order of time."""
        self.steps = 0
        self.on_end: Callable[[RequestRecord], None] | None = None
        """Called with every request that ends, if anything waits for ends."""
        self._records: dict[str, RequestRecord] = {}
        self._requests = 0
        self._wait_until = 0.0
        self._busy_s = 0.0
        self._cached = self._prompt = self._output = 0

    def submit(self, request: Request, record: RequestRecord, now: float) -> bool:
        """Submit a request. Returns False if the engine refuses it."""
        self.now = max(self.now, now)
        self._wait_until = 0.0
        try:
            self.engine.add_request(request)
        except RequestRefusedError:
            record.reason = "refused"
            record.ended_s = now
            if self.on_end is not None:
                self.on_end(record)
            return False
        self._records[request.request_id] = record
        self._requests += 1
        self.in_flight += 1
        self.tokens_in_flight += record.prompt_tokens
        return True

    def next_start(self) -> float:
        """When its next step begins if no request arrives before; infinity if there is nothing to do."""
        engine = self.engine
        if engine.has_work():
            return max(self.now, self._wait_until)
        deadline = engine.next_deadline()
        return math.inf if deadline is None else max(self.now, deadline)

    def advance(self, until: float, *, max_steps: int | None = None) -> None:
        """Do all steps that begin before `until`, or the first `max_steps` of them."""
        while (start := self.next_start()) < until:
            if self.engine.has_work():
                progress = self.engine.advance(start, until, max_steps=max_steps)
                self._busy_s += progress.now - start
                self._take(progress)
                self._wait_until = progress.wait_until or 0.0
            else:
                self._idle_step(start)
            if max_steps is not None:
                return

    def _idle_step(self, start: float) -> None:
        """Publish that a transfer of a lower tier has ended while no request runs."""
        result = self.engine.step(start)
        self.now = start
        self.steps += 1
        if result.events:
            self.published.append((start, result.events))

    def _take(self, progress: Progress) -> None:
        self.now = progress.now
        self.steps += progress.steps
        records = self._records
        for rid, at in progress.first_tokens:
            records[rid].first_token_s = at
        for gap, n in progress.gaps_us.items():
            self.gaps_us[gap] = self.gaps_us.get(gap, 0) + n
        for end in progress.finished:
            record = records.pop(end.request_id)
            record.ended_s = end.at_s
            record.output_tokens = end.output_tokens
            record.cached_tokens = end.cached_tokens
            record.preemptions = end.preemptions
            record.reason = end.reason
            self._cached += end.cached_tokens
            self._prompt += record.prompt_tokens
            self._output += end.output_tokens
            self.ended.append(record)
            if self.on_end is not None:
                self.on_end(record)
        self.published += progress.batches

    def open_at(self, now: float) -> int:
        """How many requests sent here had not ended by `now`."""
        return self.in_flight - sum(r.ended_s is not None and r.ended_s <= now for r in self.ended)

    def settle(self, now: float) -> None:
        """Remove the requests that had ended by `now` from the load."""
        kept = []
        for record in self.ended:
            assert record.ended_s is not None
            if record.ended_s <= now:
                self.in_flight -= 1
                self.tokens_in_flight -= record.prompt_tokens
            else:
                kept.append(record)
        self.ended = kept

    def record(self) -> WorkerRecord:
        """The totals of this worker."""
        stats = self.engine.statistics()
        return WorkerRecord(
            requests=self._requests,
            prompt_tokens=self._prompt,
            cached_tokens=self._cached,
            output_tokens=self._output,
            steps=self.steps,
            busy_s=self._busy_s,
            preemptions=stats.preemptions,
            stored_blocks=stats.stored_blocks,
            removed_blocks=stats.removed_blocks,
            tiers=stats.tiers,
        )
