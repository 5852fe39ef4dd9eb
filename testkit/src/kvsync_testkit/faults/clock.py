"""Virtual time: a heap of callbacks, ordered by time and then by the order in which they were requested."""

import heapq
from collections.abc import Callable

from kvsync_testkit.faults.dying import IndexDiedError


class VirtualTime:
    """Runs callbacks in the order of their times, and equal times in the order of the requests."""

    def __init__(self) -> None:
        self.now = 0.0
        self.index_died: Callable[[], None] | None = None
        """Called when a callback has ended the process of the index."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call at this time, or now if it has passed."""
        self._count += 1
        heapq.heappush(self._heap, (max(when, self.now), self._count, call))

    def after(self, delay: float, call: Callable[[], None]) -> None:
        """Call after a delay in seconds."""
        self.at(self.now + delay, call)

    def run_until(self, end: float) -> None:
        """Let time pass up to and including `end`."""
        while self._heap and self._heap[0][0] <= end:
            self.now, _, call = heapq.heappop(self._heap)
            try:
                call()
            except IndexDiedError:
                if self.index_died is None:
                    raise
                self.index_died()
        self.now = end
