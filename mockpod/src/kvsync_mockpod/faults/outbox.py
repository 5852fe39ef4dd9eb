"""Batches that are sent later than they were numbered, because of stalls, delays or reordering.

The class does no I/O: its user pushes messages, asks when the next one is due, and takes those that are due.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send: its sequence number and its payload."""

    seq: int
    payload: bytes


@dataclass(slots=True)
class _Held:
    """A reordered message: sent after `after` other messages, or when it is due."""

    message: Outgoing
    after: int
    due_s: float


class Outbox:
    """Messages ordered by due time; messages with equal times keep their order."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Outgoing]] = []
        self._held: list[_Held] = []
        self._count = 0
        self._last_due_s = 0.0
        self._stalled_until_s = 0.0

    def __len__(self) -> int:
        return len(self._heap) + len(self._held)

    def stall(self, until_s: float) -> None:
        """Let nothing be due before `until_s`."""
        self._stalled_until_s = max(self._stalled_until_s, until_s)
        self._last_due_s = max(self._last_due_s, self._stalled_until_s)
        self._heap = [(max(due, until_s), count, message) for due, count, message in self._heap]
        heapq.heapify(self._heap)

    def push(self, message: Outgoing, now_s: float, delay_s: float = 0.0) -> None:
        """Add a message that is due after `delay_s`, but never before a message pushed earlier."""
        due = max(now_s + delay_s, self._last_due_s)
        self._last_due_s = due
        self._push(due, message)
        for held in self._held:
            held.after -= 1
        for held in [each for each in self._held if each.after <= 0]:
            self._held.remove(held)
            self._push(due, held.message)

    def hold(self, message: Outgoing, after: int, due_s: float) -> None:
        """Add a message that is due after `after` later messages, or at `due_s`."""
        self._held.append(_Held(message, after, due_s))

    def _push(self, due_s: float, message: Outgoing) -> None:
        heapq.heappush(self._heap, (due_s, self._count, message))
        self._count += 1

    def next_due_s(self) -> float | None:
        """Time at which the next message is due; None when empty."""
        dues = [held.due_s for held in self._held]
        if self._heap:
            dues.append(self._heap[0][0])
        return max(min(dues), self._stalled_until_s) if dues else None

    def take(self, now_s: float) -> list[Outgoing]:
        """Remove and return the messages that are due, in order."""
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
        """Remove and return all messages, due or not."""
        self._stalled_until_s = self._last_due_s = 0.0
        return self.take(float("inf"))
