"""A link whose bandwidth its transfers share equally (processor sharing), exact and O(log N) an event.

All active transfers progress alike, so one number says how far each has come: the service a transfer present since the
beginning would have received. A transfer ends when that number reaches its own start plus its size; a heap of those
ends is all there is. Advancing never touches the transfers that do not end.
"""

import heapq
from collections.abc import Callable

from kvsync_mockpod.engine.tiers.report import LinkReport


class Transfer:
    """Bytes on their way; `done_s` is set when the last one has arrived."""

    __slots__ = ("done_s", "on_done", "size", "started_s")

    def __init__(self, size: int, started_s: float, on_done: Callable[[float], None] | None) -> None:
        self.size = size
        self.started_s = started_s
        self.on_done = on_done
        self.done_s: float | None = None


class Link:
    """`bandwidth` bytes a second shared by all active transfers; infinite bandwidth ends them at once.

    Time only moves by `advance`; starting a transfer advances first, so nobody's progress is lost.
    """

    def __init__(self, bandwidth: float, name: str = "link") -> None:
        self.bandwidth = bandwidth
        self.name = name
        self.now = 0.0
        self._service = 0.0
        """Bytes each transfer active since the link was last empty has received."""
        self._heap: list[tuple[float, int, Transfer]] = []
        self._sequence = 0
        self._transfers = 0
        self._bytes = 0
        self._busy_s = 0.0

    def __len__(self) -> int:
        """Transfers under way."""
        return len(self._heap)

    def start(self, size: int, now: float, on_done: Callable[[float], None] | None = None) -> Transfer:
        """Begin a transfer of `size` bytes; `on_done(time)` is called by the `advance` that ends it."""
        self.advance(now)
        if not self._heap:
            self._service = 0.0
        transfer = Transfer(size, self.now, on_done)
        self._sequence += 1
        heapq.heappush(self._heap, (self._service + size, self._sequence, transfer))
        return transfer

    def deadline(self) -> float | None:
        """When the next transfer ends if no other starts; None when idle."""
        if not self._heap:
            return None
        return self.now + (self._heap[0][0] - self._service) * len(self._heap) / self.bandwidth

    def advance(self, now: float) -> None:
        """Let time pass until `now` (never backwards); ends come in time order, ties in start order.

        An end's callback may start transfers on this link; they begin at that end's time.
        """
        while self._heap:
            end = self.deadline()
            assert end is not None
            if end <= now:
                self._finish_first(end)
            elif now > self.now:
                self._service += (now - self.now) * self.bandwidth / len(self._heap)
                self._busy_s += now - self.now
                self.now = now  # what is left may be too little to end later than now: look again
            else:
                return
        self.now = max(self.now, now)

    def _finish_first(self, end: float) -> None:
        self._busy_s += end - self.now
        self.now = end
        self._service, _, transfer = heapq.heappop(self._heap)
        transfer.done_s = end
        self._transfers += 1
        self._bytes += transfer.size
        if transfer.on_done is not None:
            transfer.on_done(end)

    def report(self) -> LinkReport:
        """Completed transfers, their bytes, and the time in which the link was not idle."""
        return LinkReport(self._transfers, self._bytes, self._busy_s)
