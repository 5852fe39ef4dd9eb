"""The waiting queue, by policy. Removal anywhere is O(1) (fcfs) or lazy (priority)."""

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Protocol

from kvsync_mockpod.engine.sequence import Sequence


class WaitingQueue(Protocol):
    """Sequences that wait, in the order they are to be admitted."""

    @property
    def live(self) -> Mapping[str, object]:
        """The waiting ones by id (in no particular order)."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sequence]: ...

    def push(self, seq: Sequence) -> None:
        """A new arrival."""

    def push_front(self, seq: Sequence) -> None:
        """One that was admitted before: to the head, where the policy knows a head."""

    def put_back(self, seq: Sequence) -> None:
        """One that a step skipped over: to where it was (called for the last of them first)."""

    def peek(self) -> Sequence:
        """The next to be admitted."""

    def pop(self) -> Sequence:
        """Take the next."""

    def remove(self, seq: Sequence) -> None:
        """Take this one out, wherever it is."""


class FcfsQueue:
    """First come, first served; a preempted sequence goes to the head."""

    def __init__(self) -> None:
        self.live: OrderedDict[str, Sequence] = OrderedDict()

    def __len__(self) -> int:
        return len(self.live)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self.live.values())

    def push(self, seq: Sequence) -> None:
        """A new arrival: to the end."""
        self.live[seq.id] = seq

    def push_front(self, seq: Sequence) -> None:
        """To the head."""
        self.live[seq.id] = seq
        self.live.move_to_end(seq.id, last=False)

    put_back = push_front

    def peek(self) -> Sequence:
        """The next, left in place."""
        return next(iter(self.live.values()))

    def pop(self) -> Sequence:
        """The next, taken out."""
        return self.live.popitem(last=False)[1]

    def remove(self, seq: Sequence) -> None:
        """Taken out wherever it is."""
        del self.live[seq.id]


class SkippedFirstQueue:
    """First come, first served, but those that a step skipped over stand before everybody, the preempted too."""

    def __init__(self) -> None:
        self.live: dict[str, FcfsQueue] = {}
        self._skipped = FcfsQueue()
        self._others = FcfsQueue()

    def __len__(self) -> int:
        return len(self.live)

    def __iter__(self) -> Iterator[Sequence]:
        return chain(self._skipped, self._others)

    def push(self, seq: Sequence) -> None:
        """A new arrival: to the end."""
        self.live[seq.id] = self._others
        self._others.push(seq)

    def push_front(self, seq: Sequence) -> None:
        """To the head, behind the skipped."""
        self.live[seq.id] = self._others
        self._others.push_front(seq)

    def put_back(self, seq: Sequence) -> None:
        """Skipped: to the very head."""
        self.live[seq.id] = self._skipped
        self._skipped.push_front(seq)

    def peek(self) -> Sequence:
        """The next, left in place."""
        return (self._skipped if self._skipped.live else self._others).peek()

    def pop(self) -> Sequence:
        """The next, taken out."""
        seq = self.peek()
        self.remove(seq)
        return seq

    def remove(self, seq: Sequence) -> None:
        """Taken out wherever it is."""
        self.live.pop(seq.id).remove(seq)


class PriorityQueue:
    """Lower priority value first, then earlier arrival, then the smaller id; there is no head to go to."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, float, str, int, Sequence]] = []
        self.live: dict[str, int] = {}
        self._entries = 0

    def __len__(self) -> int:
        return len(self.live)

    def __iter__(self) -> Iterator[Sequence]:
        return iter([e[4] for e in sorted(self._heap) if self.live.get(e[2]) == e[3]])

    def push(self, seq: Sequence) -> None:
        """To its place."""
        self._entries += 1
        self.live[seq.id] = self._entries
        heapq.heappush(self._heap, (seq.request.priority, seq.arrival, seq.id, self._entries, seq))

    push_front = put_back = push

    def peek(self) -> Sequence:
        """The next, left in place."""
        while self.live.get(self._heap[0][2]) != self._heap[0][3]:
            heapq.heappop(self._heap)
        return self._heap[0][4]

    def pop(self) -> Sequence:
        """The next, taken out."""
        seq = self.peek()
        heapq.heappop(self._heap)
        del self.live[seq.id]
        return seq

    def remove(self, seq: Sequence) -> None:
        """Taken out wherever it is."""
        del self.live[seq.id]
        if len(self._heap) > 2 * len(self.live) + 64:
            self._heap = [e for e in self._heap if self.live.get(e[2]) == e[3]]
            heapq.heapify(self._heap)


def make_queue(policy: str, *, skipped_first: bool = False) -> WaitingQueue:
    """The queue of a policy: `fcfs` or `priority`. `skipped_first` changes fcfs only: priority knows no head."""
    if policy == "priority":
        return PriorityQueue()
    return SkippedFirstQueue() if skipped_first else FcfsQueue()
