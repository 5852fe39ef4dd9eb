"""A lock that long work gives up for those who wait.

A thread that releases a lock and takes it again at once nearly always gets it, before one that was waiting has woken.
"""

import threading
from collections import deque
from types import TracebackType
from typing import Final

_LONGEST_S: Final = 0.001


class GivingLock:
    """A lock, as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()
        self._taken = threading.Event()
        """Set when a thread that waited has the lock."""

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waiting.append(None)
            self._lock.acquire()
            self._waiting.pop()
            self._taken.set()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def give_way(self) -> None:
        """Without the lock: let a thread that waits for it have it, for a millisecond at most."""
        if self._waiting:
            self._taken.clear()
            self._taken.wait(_LONGEST_S)
