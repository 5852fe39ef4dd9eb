"""Waiting queues, one class per scheduling policy. Removing any entry is O(1) (fcfs) or lazy (priority)."""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Protocol

from kvsync_mockpod.engine.sequence import Sequence


class WaitingQueue(Protocol):
    """Waiting sequences in the order in which they are admitted."""

    @property
    def live(self) -> Mapping[str, object]:
        """The waiting sequences by id, in no particular order."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence]: ...

    def push(self, seq: Sequence) -> None:
        """Add a new arrival."""

    def push_front(self, seq: Sequence) -> None:
        """Add a sequence that was admitted before: at the head, if the policy has one."""

    def put_back(self, seq: Sequence) -> None:
        """Return a sequence that a step skipped to its former place; the last one skipped is returned first."""

    def peek(self) -> Sequence:
        """The next sequence to admit, left in the queue."""

    def pop(self) -> Sequence:
        """Remove and return the next sequence to admit."""

    def remove(self, seq: Sequence) -> None:
        """Remove a sequence, wherever it is in the queue."""


class FcfsQueue:
    """First come, first served; a preempted sequence goes to the head."""

    def __init__(self) -> None:
        self.live: OrderedDict[str, Sequence] = OrderedDict()

    def __len__(self) -> int:
        return len(self.live)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self.live.values())

    def push(self, seq: Sequence) -> None:
        """Add a new arrival at the end."""
        self.live[seq.id] = seq

    def push_front(self, seq: Sequence) -> None:
        """Add a sequence at the head."""
        self.live[seq.id] = seq
        self.live.move_to_end(seq.id, last=False)

    put_back = push_front

    def peek(self) -> Sequence:
        """The next sequence, left in the queue."""
        return next(iter(self.live.values()))

    def pop(self) -> Sequence:
        """Remove and return the next sequence."""
        return self.live.popitem(last=False)[1]

    def remove(self, seq: Sequence) -> None:
        """Remove a sequence, wherever it is in the queue."""
        del self.live[seq.id]


class SkippedFirstQueue:
    """First come, first served, but sequences skipped by a step precede all others, including preempted ones."""

    def __init__(self) -> None:
        self.live: dict[str, FcfsQueue] = {}
        self._skipped = FcfsQueue()
        self._others = FcfsQueue()

    def __len__(self) -> int:
        return len(self.live)

    def __iter__(self) -> Iterator[Sequence]:
        return chain(self._skipped, self._others)

    def push(self, seq: Sequence) -> None:
        """Add a new arrival at the end."""
        self.live[seq.id] = self._others
        self._others.push(seq)

    def push_front(self, seq: Sequence) -> None:
        """Add a sequence at the head, behind the skipped ones."""
        self.live[seq.id] = self._others
        self._others.push_front(seq)

    def put_back(self, seq: Sequence) -> None:
        """Return a skipped sequence to the very head."""
        self.live[seq.id] = self._skipped
        self._skipped.push_front(seq)

    def peek(self) -> Sequence:
        """The next sequence, left in the queue."""
        return (self._skipped if self._skipped.live else self._others).peek()

    def pop(self) -> Sequence:
        """Remove and return the next sequence."""
        seq = self.peek()
        self.remove(seq)
        return seq

    def remove(self, seq: Sequence) -> None:
        """Remove a sequence, wherever it is in the queue."""
        self.live.pop(seq.id).remove(seq)


class PriorityQueue:
    """Lowest priority value first, then the earliest arrival, then the smallest id. There is no head to go to."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, str, int, Sequence]] = []
        self.live: dict[str, int] = {}
        self._entries = 0

    def __len__(self) -> int:
        return len(self.live)

    def __iter__(self) -> Iterator[Sequence]:
        return iter([e[4] for e in sorted(self._heap) if self.live.get(e[2]) == e[3]])

    def push(self, seq: Sequence) -> None:
        """Add a sequence at the place that its priority gives it."""
        self._entries += 1
        self.live[seq.id] = self._entries
        heapq.heappush(self._heap, (seq.request.priority, seq.arrival, seq.id, self._entries, seq))

    push_front = put_back = push

    def peek(self) -> Sequence:
        """The next sequence, left in the queue."""
        while self.live.get(self._heap[0][2]) != self._heap[0][3]:
            heapq.heappop(self._heap)
        return self._heap[0][4]

    def pop(self) -> Sequence:
        """Remove and return the next sequence."""
        seq = self.peek()
        heapq.heappop(self._heap)
        del self.live[seq.id]
        return seq

    def remove(self, seq: Sequence) -> None:
        """Remove a sequence, wherever it is in the queue."""
        del self.live[seq.id]
        if len(self._heap) > 2 * len(self.live) + 64:
            self._heap = [e for e in self._heap if self.live.get(e[2]) == e[3]]
            heapq.heapify(self._heap)


def make_queue(policy: str, *, skipped_first: bool = False) -> WaitingQueue:
    """The queue of a policy, `fcfs` or `priority`; `skipped_first` affects fcfs only."""
    if policy == "priority":
        return PriorityQueue()
    return SkippedFirstQueue() if skipped_first else FcfsQueue()
