"""Virtual time: timers fire in the order of their deadlines, and only when a test lets time pass.

Whatever waits for a deadline in the kit (the batching window of an event publisher, a delayed frame) takes this clock
instead of sleeping, so that a test of a ten-second window takes no time and gives the same result on every run.
"""

import asyncio
import heapq
import types
from collections.abc import Callable, Generator

from kvsync_testkit.errors import ConfigurationError


class Timer:
    """A callback that is due at `when` (seconds on its clock) unless it is cancelled first."""

    __slots__ = ("callback", "cancelled", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not fire. Cancelling a timer that has fired has no effect."""
        self.cancelled = True


class VirtualClock:
    """A clock that moves only by `advance` and `run_until`; it starts at 0 seconds unless told otherwise.

    Calling the clock returns its time, so it can stand in wherever a `Callable[[], float]` such as
    `time.monotonic` is expected.
    """

    def __init__(self, start_s: float = 0.0) -> None:
        self.now = start_s
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = 0

    def __call__(self) -> float:
        """The present time in seconds."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call at `when` seconds, or at the present time if that has passed; equal deadlines fire in this order."""
        timer = Timer(max(when, self.now), callback)
        heapq.heappush(self._timers, (timer.when, self._order, timer))
        self._order += 1
        return timer

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `delay_s` seconds from now."""
        return self.call_at(self.now + delay_s, callback)

    def next_deadline(self) -> float | None:
        """When the next timer fires; None if there is none."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def run_until(self, end: float) -> None:
        """Let time pass up to `end`, firing every timer due by then, also those that a callback adds.

        Raises:
            ConfigurationError: `end` lies in the past.
        """
        if end < self.now:
            raise ConfigurationError(f"the clock reads {self.now:g} s and cannot go back to {end:g} s")
        while (deadline := self.next_deadline()) is not None and deadline <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            self.fire(timer)
        self.now = end

    def fire(self, timer: Timer) -> None:
        """Call a timer that is due; a subclass may catch what its callback raises."""
        timer.callback()

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.run_until(self.now + seconds)


class AsyncVirtualClock(VirtualClock):
    """A virtual clock that tasks of an event loop sleep on: it has the `monotonic` and `sleep` of a real one.

    `elapse` lets time pass and the tasks run. `advance` and `run_until` only fire timers; the tasks that these wake run
    at the next chance.
    """

    def monotonic(self) -> float:
        """The present time in seconds."""
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` have passed on this clock."""
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    async def elapse(self, seconds: float) -> None:
        """Let `seconds` pass: wake every sleeper when its time has come, and let its task run until it waits again."""
        end = self.now + seconds
        await self.settle()
        while (deadline := self.next_deadline()) is not None and deadline <= end:
            self.run_until(deadline)
            await self.settle()
        self.run_until(end)

    async def settle(self, rounds: int = 50) -> None:
        """Let every task run until all of them wait; `rounds` is more than the longest chain of callbacks has."""
        for _ in range(rounds):
            await _yield_once()


@types.coroutine
def _yield_once() -> Generator[None, None, None]:
    """Let the event loop run what is ready."""
    yield
