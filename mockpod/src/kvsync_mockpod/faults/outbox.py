"""Batches that leave later than they were numbered: stalls, delays, reordering.

Pure: the publisher pushes, asks when the next one is due, and takes what is due.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message to send: the number and payload on the wire."""

    seq: int
    payload: bytes


@dataclass(slots=True)
class _Held:
    """A reordered batch: leaves after `after` others, or when it is due anyway."""

    message: Outgoing
    after: int
    due_s: float


class Outbox:
    """Messages by due time, equal times in the order they came."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Outgoing]] = []
        self._held: list[_Held] = []
        self._count = 0
        self._last_due_s = 0.0
        self._stalled_until_s = 0.0

    def __len__(self) -> int:
        return len(self._heap) + len(self._held)

    def stall(self, until_s: float) -> None:
        """Nothing is due before `until_s`."""
        self._stalled_until_s = max(self._stalled_until_s, until_s)
        self._last_due_s = max(self._last_due_s, self._stalled_until_s)
        self._heap = [(max(due, until_s), count, message) for due, count, message in self._heap]
        heapq.heapify(self._heap)

    def push(self, message: Outgoing, now_s: float, delay_s: float = 0.0) -> None:
        """Due after `delay_s`, but never before what was pushed earlier."""
        due = max(now_s + delay_s, self._last_due_s)
        self._last_due_s = due
        self._push(due, message)
        for held in self._held:
            held.after -= 1
        for held in [each for each in self._held if each.after <= 0]:
            self._held.remove(held)
            self._push(due, held.message)

    def hold(self, message: Outgoing, after: int, due_s: float) -> None:
        """Leave after `after` later messages, or at `due_s`."""
        self._held.append(_Held(message, after, due_s))

    def _push(self, due_s: float, message: Outgoing) -> None:
        heapq.heappush(self._heap, (due_s, self._count, message))
        self._count += 1

    def next_due_s(self) -> float | None:
        """When something is due next; None when empty."""
        dues = [held.due_s for held in self._held]
        if self._heap:
            dues.append(self._heap[0][0])
        return max(min(dues), self._stalled_until_s) if dues else None

    def take(self, now_s: float) -> list[Outgoing]:
        """What is due by now, in order."""
        if now_s < self._stalled_until_s:
            return []
        for held in [each for each in self._held if each.due_s <= now_s]:
            self._held.remove(held)
            self._push(held.due_s, held.message)
        taken = []
        while self._heap and self._heap[0][0] <= now_s:
            taken.append(heapq.heappop(self._heap)[2])
        return taken

    def take_all(self) -> list[Outgoing]:
        """Everything, due or not (the pod stops, or the plan was cleared)."""
        self._stalled_until_s = self._last_due_s = 0.0
        return self.take(float("inf"))
