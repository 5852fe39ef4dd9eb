"""A lock that long work gives up for those who wait.

A thread that releases a lock and takes it again at once nearly always gets it, before one that was waiting has woken.
"""

import threading
import time
from collections import deque
from types import TracebackType
from typing import Final

_PAUSE_S: Final = 20e-6
_PAUSES: Final = 50
"""How often `give_way` looks whether others still wait."""


class GivingLock:
    """A lock, as a context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[None] = deque()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._waiting.append(None)
            self._lock.acquire()
            self._waiting.pop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()

    def give_way(self) -> None:
        """Without the lock: let the threads that wait for it have it, for a millisecond or so."""
        for _ in range(_PAUSES):
            if not self._waiting:
                return
            time.sleep(_PAUSE_S)
