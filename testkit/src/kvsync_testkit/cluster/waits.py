"""Waits on a cluster whose API server and pods may be restarting."""

import time
from collections.abc import Callable
from typing import TypeVar

from kvsync_testkit import waiting
from kvsync_testkit.kube import KubeError

T = TypeVar("T")

NOT_YET = (AssertionError, OSError, KubeError)
"""Errors of a probe that mean "not yet"."""


def wait_until(what: str, probe: Callable[[], T], *, deadline_s: float, every_s: float = 0.25) -> T:
    """Wait for a truthy result of `probe` with `kvsync_testkit.waiting`. An error in `NOT_YET` counts as "not yet".

    Raises:
        DeadlineError: naming `what`, the time, and the last result or error.
    """
    return waiting.wait_until(what, probe, deadline_s=deadline_s, every_s=every_s, retry_on=NOT_YET)


def wait_while(what: str, probe: Callable[[], object], *, for_s: float) -> None:
    """Watch a condition for `for_s` seconds.

    Raises:
        AssertionError: `probe` returned a falsy value; whatever it raises comes through as well.
    """
    end = time.monotonic() + for_s

    def over() -> bool:
        if not probe():
            raise AssertionError(f"{what}: no longer true")
        return time.monotonic() >= end

    waiting.wait_until(f"{what} for {for_s:g} s", over, deadline_s=for_s + 60.0, every_s=0.5)
