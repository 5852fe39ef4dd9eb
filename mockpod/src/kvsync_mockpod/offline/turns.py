"""Closed loops: requests that begin some time after others have ended, such as the turns of a session."""

import heapq
import math
from collections.abc import Sequence

from kvsync_mockpod.offline.result import RequestRecord
from kvsync_workload.arrivals import Arrivals, arrival_times
from kvsync_workload.trace import TraceRequest


class Turns:
    """The requests that have not begun yet: those that are due at a known time, and those that wait for others.

    Arrival settings apply to the requests that wait for nothing: a rate is one of sessions. Replaying a trace faster
    also divides the times between turns.
    """

    def __init__(self, requests: Sequence[TraceRequest], arrivals: Arrivals, seed: int) -> None:
        self.left = len(requests)
        """Requests that have not begun."""
        speed = arrivals.speed if arrivals.kind == "trace" else 1.0
        self._think_s = [request.think_s / speed for request in requests]
        self._missing = [len(request.waits_for) for request in requests]
        self._earliest = [0.0] * len(requests)
        """When the last end so far of those that a request waits for was."""
        self._successors: dict[int, list[int]] = {}
        for number, request in enumerate(requests):
            for before in request.waits_for:
                self._successors.setdefault(before, []).append(number)
        first = [number for number, request in enumerate(requests) if not request.waits_for]
        times = arrival_times([requests[number] for number in first], arrivals, seed)
        self._due = list(zip(times, first, strict=True))
        heapq.heapify(self._due)

    @property
    def next_due(self) -> float:
        """When the next request is due; infinity while all of them wait for others."""
        return self._due[0][0] if self._due else math.inf

    def pop(self) -> tuple[int, float]:
        """Begin the next request: its number and when it is due."""
        self.left -= 1
        due, number = heapq.heappop(self._due)
        return number, due

    def ended(self, record: RequestRecord) -> None:
        """A request has ended, however it did."""
        assert record.ended_s is not None
        for number in self._successors.get(record.number, ()):
            self._missing[number] -= 1
            self._earliest[number] = max(self._earliest[number], record.ended_s)
            if not self._missing[number]:
                heapq.heappush(self._due, (self._earliest[number] + self._think_s[number], number))
