"""Links whose bandwidth is shared equally by their transfers (processor sharing), exact and in O(log N) per event.

All active transfers progress at the same rate. One number, the service, therefore describes the progress of all of
them: the bytes that a transfer would have received if it had been active since the link was last empty. A transfer
ends when the service reaches its value at the transfer's start plus the transfer's size, so a heap of these end values
is the only state, and advancing the link does not touch the transfers that do not end.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from kvsync_mockpod.engine.tiers.report import LinkReport


class Transfer:
    """Bytes in transit; `done_s` is set when the last byte has arrived."""

    __slots__ = ("done_s", "on_done", "owner", "size", "started_s")

    def __init__(
        self, size: int, started_s: float, on_done: Callable[[float], None] | None, owner: object = None
    ) -> None:
        self.size = size
        self.started_s = started_s
        self.on_done = on_done
        self.owner = owner
        self.done_s: float | None = None


class Link:
    """A bandwidth in bytes per second, shared by all active transfers; with an infinite one transfers end at once.

    Time moves only in `advance`. Starting a transfer advances the link first, so no transfer loses its progress.
    """

    def __init__(self, bandwidth: float, name: str = "link") -> None:
        self.bandwidth = bandwidth
        self.name = name
        self.now = 0.0
        self._service = 0.0
        """Bytes received by a transfer that has been active since the link was last empty."""
        self._heap: list[tuple[float, int, Transfer]] = []
        self._sequence = 0
        self._transfers = 0
        self._bytes = 0
        self._busy_s = 0.0

    def __len__(self) -> int:
        """Transfers under way."""
        return len(self._heap)

    def start(
        self, size: int, now: float, on_done: Callable[[float], None] | None = None, *, owner: object = None
    ) -> Transfer:
        """Begin a transfer of `size` bytes; the `advance` that ends it calls `on_done(time)`."""
        self.advance(now)
        if not self._heap:
            self._service = 0.0
        transfer = Transfer(size, self.now, on_done, owner)
        self._sequence += 1
        heapq.heappush(self._heap, (self._service + size, self._sequence, transfer))
        return transfer

    def cancel(self, owner: object, now: float) -> None:
        """End the transfers of one owner at `now` without completing them; the others keep their progress."""
        self.advance(now)
        self._heap = [entry for entry in self._heap if entry[2].owner is not owner]
        heapq.heapify(self._heap)

    def deadline(self) -> float | None:
        """Time at which the next transfer ends if no other starts; None when idle."""
        if not self._heap:
            return None
        return self.now + (self._heap[0][0] - self._service) * len(self._heap) / self.bandwidth

    def advance(self, now: float) -> None:
        """Let time pass until `now`, never backwards. Transfers end in time order; ties end in start order.

        The callback of a transfer that ends may start transfers on this link; they begin at that time.
        """
        while self._heap:
            end = self.deadline()
            assert end is not None
            if end <= now:
                self._finish_first(end)
            elif now > self.now:
                self._service += (now - self.now) * self.bandwidth / len(self._heap)
                self._busy_s += now - self.now
                self.now = now  # rounding may leave a remainder that ends at this very time: check again
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
        """Completed transfers, their bytes, and the time in which the link was busy."""
        return LinkReport(self._transfers, self._bytes, self._busy_s)


@dataclass(slots=True, eq=False)
class TierLinks:
    """The links of one worker. The disk's link may be shared with other workers."""

    device_to_host: Link
    host_to_device: Link
    disk: Link

    def start(self, link: Link, size: int, now: float, on_done: Callable[[float], None]) -> None:
        """Begin a transfer of this worker on one of its links."""
        link.start(size, now, on_done, owner=self)

    def cancel(self, now: float) -> None:
        """End all transfers of this worker without completing them."""
        for link in (self.device_to_host, self.host_to_device, self.disk):
            link.cancel(self, now)

    def tick(self, now: float) -> None:
        """Advance all links to `now` in time order, so that an end on one link can start a transfer on another."""
        links = (self.device_to_host, self.host_to_device, self.disk)
        while True:
            deadline = self.deadline()
            if deadline is None or deadline > now:
                break
            for link in links:
                if link.deadline() == deadline:
                    link.advance(deadline)
                    break
        for link in links:
            link.advance(now)

    def deadline(self) -> float | None:
        """Time at which the next transfer on any link ends; None when all are idle."""
        ends = (self.device_to_host.deadline(), self.host_to_device.deadline(), self.disk.deadline())
        return min((end for end in ends if end is not None), default=None)
