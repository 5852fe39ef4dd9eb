"""Polling a condition with a deadline, in place of sleeping and hoping.

`wait_until` blocks a thread and `until` awaits; both return the first truthy result of the probe, and both name what
they waited for and what they saw last when the deadline passes.
"""

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_never = threading.Event()


def pause(seconds: float) -> None:
    """Let real time pass, in seconds: the interval of a measurement on a running system, not a wait for something."""
    _never.wait(seconds)


class DeadlineError(AssertionError):
    """The condition did not come to hold; the message says what was last seen."""


def wait_until(
    what: str,
    probe: Callable[[], T],
    *,
    deadline_s: float = 10.0,
    every_s: float = 0.02,
    retry_on: tuple[type[Exception], ...] = (),
) -> T:
    """Call `probe` every `every_s` seconds until its result is truthy, and return that result.

    Args:
        what: The condition in words, for the error message.
        probe: Called at least once. An exception of a type in `retry_on` counts as "not yet".
        deadline_s: Longest time to wait, in seconds.
        every_s: Pause between two probes, in seconds.
        retry_on: Exception types that mean "not yet".

    Raises:
        DeadlineError: naming `what`, the time, and the last result or error.
    """
    began = time.monotonic()
    seen: object = None
    while True:
        try:
            result = probe()
            if result:
                return result
            seen = result
        except retry_on as error:
            seen = error
        if time.monotonic() - began >= deadline_s:
            raise DeadlineError(f"{what}: not within {deadline_s:g} s; last seen: {seen!r}")
        _never.wait(every_s)


async def until(
    what: str,
    probe: Callable[[], T | Awaitable[T]],
    *,
    deadline_s: float = 10.0,
    every_s: float = 0.01,
    retry_on: tuple[type[Exception], ...] = (),
) -> T:
    """The same inside an event loop; `probe` may return a value or an awaitable.

    Raises:
        DeadlineError: naming `what`, the time, and the last result or error.
    """
    began = time.monotonic()
    seen: object = None
    while True:
        try:
            answer = probe()
            result = await answer if inspect.isawaitable(answer) else answer
            if result:
                return result
            seen = result
        except retry_on as error:
            seen = error
        if time.monotonic() - began >= deadline_s:
            raise DeadlineError(f"{what}: not within {deadline_s:g} s; last seen: {seen!r}")
        await asyncio.sleep(every_s)
