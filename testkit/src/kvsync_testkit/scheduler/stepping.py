"""Drives an engine on a virtual clock and records what every request got."""

from dataclasses import dataclass, field

from kvsync_events import Event
from kvsync_mockpod.engine import Engine, FinishReason, Request, StepResult
from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.scheduler.steplog import StepLog


@dataclass
class Outcome:
    """What one request got."""

    tokens: list[int] = field(default_factory=list)
    token_times: list[float] = field(default_factory=list)
    """When each token became available, in seconds on the clock."""
    reason: FinishReason | None = None
    """None while the request has not ended."""
    finished_s: float | None = None
    cached_tokens: int = 0
    error: str | None = None
    arrived_s: float = 0.0


class SteppedScheduler:
    """An engine that takes one step per call, on a clock that moves by the duration of each step.

    Attributes:
        engine: The engine, for everything that is not about stepping.
        clock: Moves with the steps, and with the transfers of lower tiers that nothing else can run before.
        steps: Every step so far.
        outcomes: What each request got, by id.
        events: The block events of all steps.
    """

    def __init__(self, engine: Engine, clock: VirtualClock | None = None) -> None:
        self.engine = engine
        self.clock = clock or VirtualClock()
        self.steps = StepLog()
        self.outcomes: dict[str, Outcome] = {}
        self.events: list[Event] = []

    @property
    def now(self) -> float:
        """The time in seconds."""
        return self.clock.now

    def add(self, *requests: Request) -> None:
        """Queue requests.

        Raises:
            ConfigurationError: a request of this id was queued before.
            RequestRefusedError: the engine does not accept one; those before it are queued.
        """
        for request in requests:
            if request.request_id in self.outcomes:
                raise ConfigurationError(f"a request {request.request_id!r} was queued before")
            self.engine.add_request(request)
            self.outcomes[request.request_id] = Outcome(arrived_s=self.now)

    def step(self) -> StepResult:
        """Take one step and let its duration pass; if only a transfer can make a difference, until it ends."""
        result = self.engine.step(self.now)
        self.clock.advance(result.duration_s)
        self.steps.append(result)
        self.events += result.events
        for output in result.outputs:
            outcome = self.outcomes[output.request_id]
            assert outcome.reason is None, f"output for {output.request_id} after its end"
            outcome.tokens += output.new_token_ids
            outcome.token_times += [self.now] * len(output.new_token_ids)
            outcome.cached_tokens = output.cached_tokens
            outcome.error = output.error
            if output.finish_reason is not None:
                outcome.reason, outcome.finished_s = output.finish_reason, self.now
        if result.wait_until is not None:
            self._wait(result.wait_until)
        return result

    def until_idle(self, limit: int = 100_000) -> "SteppedScheduler":
        """Step until no request is left and no transfer is under way; returns the scheduler itself.

        Raises:
            AssertionError: that takes more than `limit` steps.
        """
        while self.engine.has_work() or self.engine.next_deadline() is not None:
            if not self.engine.has_work():
                self._wait(self.engine.next_deadline() or self.now)
            self.step()
            assert len(self.steps) < limit, f"the engine has work after {limit} steps"
        return self

    def assert_nothing_leaked(self) -> None:
        """Every block is free, and no request is queued.

        Raises:
            AssertionError: names what is left.
        """
        stats = self.engine.statistics()
        assert stats.running + stats.waiting == 0, f"{stats.running} requests run, {stats.waiting} wait"
        assert stats.free_blocks == stats.total_blocks, f"{stats.total_blocks - stats.free_blocks} blocks are held"

    def _wait(self, until: float) -> None:
        self.clock.run_until(max(self.now, until))
