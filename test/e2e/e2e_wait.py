"""Waiting for conditions: every wait of the suite is one of these, with a deadline and a reason when it passes."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_never = threading.Event()


class DeadlineError(AssertionError):
    """The condition did not come to hold; the message says what was last seen."""


def wait_until(what: str, probe: Callable[[], T], *, deadline_s: float, every_s: float = 0.25) -> T:
    """The first truthy result of `probe`.

    An AssertionError of the probe counts as "not yet" and its message as what was last seen; so does any error of the
    API server or a pod (they may be restarting).

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
        except (AssertionError, OSError, KubeError) as error:
            seen = error
        if time.monotonic() - began >= deadline_s:
            raise DeadlineError(f"{what}: not within {deadline_s:g} s; last seen: {seen!r}")
        _never.wait(every_s)


def wait_while(what: str, probe: Callable[[], object], *, for_s: float, every_s: float = 0.5) -> None:
    """Fails as soon as `probe` is falsy or raises within `for_s` seconds: for what must *stay* so."""
    began = time.monotonic()
    while time.monotonic() - began < for_s:
        assert probe(), f"{what}: no longer so after {time.monotonic() - began:.1f} s"
        _never.wait(every_s)


class KubeError(Exception):
    """An answer of the API server, or of a pod or Service behind its proxy, that is not 2xx."""

    def __init__(self, status: int, method: str, path: str, body: str) -> None:
        super().__init__(f"{method} {path}: {status} {body[:2000]}")
        self.status = status
        self.body = body
