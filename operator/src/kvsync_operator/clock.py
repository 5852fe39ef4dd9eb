"""The clock that the operator's tasks read and sleep on.

Every wait of the operator goes through a `Clock`, so that a test can hand in a clock whose time it advances itself.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """A source of monotonic time, and a way to sleep on it."""

    def monotonic(self) -> float:
        """Return seconds since an arbitrary moment; the value never decreases."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` have passed on this clock."""
        ...


class SystemClock:
    """The real clock of this machine and its event loop."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep in the event loop."""
        await asyncio.sleep(seconds)


async def wait_for_event(clock: Clock, event: asyncio.Event, timeout_s: float) -> bool:
    """Wait until `event` is set, but at most `timeout_s` seconds of `clock`.

    Returns:
        Whether the event was set.
    """
    timer = asyncio.create_task(clock.sleep(timeout_s))
    waiter = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({timer, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
        waiter.cancel()
    return event.is_set()
