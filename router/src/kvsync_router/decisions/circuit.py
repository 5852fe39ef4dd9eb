"""Circuit breaking: an endpoint that keeps failing requests is left out for a while, then tried with one request.

Health checks find an engine whose HTTP server hangs or is gone. This finds one that answers `/health` and nothing else.
"""

from typing import Final

FAILURES: Final = 3
"""Failures in a row that open a circuit. One request that an engine cannot serve must not remove it for all others."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
FAILED_STATUSES: Final = frozenset({502, 503, 504})
"""Statuses of an answer that count as a failure: the engine is draining, or it is a proxy that failed."""


class Circuit:
    """The recent history of one endpoint. Times are monotonic seconds."""

    __slots__ = ("_failures", "_pause_s", "_until")

    def __init__(self) -> None:
        self._failures = 0
        self._pause_s = 0.0
        self._until = 0.0

    def admits(self, now: float) -> bool:
        """Whether the endpoint may be sent a request."""
        return not self._pause_s or now >= self._until

    def begin(self, now: float) -> None:
        """A request is sent. After a pause it is the only one until it has an outcome, or another pause has passed."""
        if self._pause_s and now >= self._until:
            self._until = now + self._pause_s

    def succeeded(self) -> None:
        """A request was answered."""
        self._failures = 0
        self._pause_s = 0.0

    def failed(self, now: float) -> bool:
        """A request failed before the first byte of its answer. Returns whether that opened the circuit."""
        self._failures += 1
        if self._failures < FAILURES:
            return False
        opened = not self._pause_s
        self._pause_s = FIRST_PAUSE_S if opened else min(self._pause_s * 2, LONGEST_PAUSE_S)
        self._until = now + self._pause_s
        return opened
