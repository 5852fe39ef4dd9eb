"""Virtual time: timers fire in the order of their deadlines, and only when a test lets time pass.

Whatever waits for a deadline in the kit (the batching window of an event publisher, a delayed frame) takes this clock
instead of sleeping, so that a test of a ten-second window takes no time and gives the same result on every run.
"""

import heapq
from collections.abc import Callable

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
            timer.callback()
        self.now = end

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self.run_until(self.now + seconds)
