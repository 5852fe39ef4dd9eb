"""Runs of consecutive cached blocks, and the queue in which idle runs wait to be reused.

Blocks of one chain that are stored, held and released together form one object, so that a prompt of a thousand blocks
costs only a few operations. A run is split when a sequence holds only its beginning.
"""

from collections.abc import Iterator
from typing import Any


class Run:
    """Cached blocks in chain order, all held by the same number of sequences (`holders`).

    A block hash identifies its whole prefix, so two chains that share one hash share everything before it.
    """

    __slots__ = ("copies", "holders", "keys", "next", "origin", "prev")

    def __init__(self, keys: list[Any], holders: int, origin: "Run | None" = None) -> None:
        self.keys: list[Any] = keys
        """Block hashes; None for idle blocks without a hash, which exist in plain LRU order only."""
        self.holders = holders
        self.copies: list[Run] = []
        """Later copies of the same block, oldest first.

        Only the first copy, which is then one block long, has this list.
        """
        self.origin = origin
        """The run from which this one was split; tables that held both as one run find the beginning here."""
        self.prev: Run | None = None
        self.next: Run | None = None

    def common(self, hashes: list[Any], at: int, limit: int) -> int:
        """Number of blocks, from `hashes[at]` on, that this run shares. The first is known to be shared. O(log n)."""
        keys = self.keys
        high = min(len(keys), limit - at)
        if keys[high - 1] == hashes[at + high - 1]:
            return high
        low = 1
        while low < high - 1:  # keys[low-1] is equal, keys[high-1] is not
            middle = (low + high) >> 1
            if keys[middle - 1] == hashes[at + middle - 1]:
                low = middle
            else:
                high = middle
        return low


class ReuseQueue:
    """Idle runs in reuse order: a doubly linked list. Each run is consumed from its end (leaf first)."""

    def __init__(self) -> None:
        self._sentinel = Run([], 0)
        self.clear()

    def clear(self) -> None:
        """Forget all runs."""
        s = self._sentinel
        s.prev = s.next = s
        self.blocks = 0
        """Number of blocks in all runs."""

    def __iter__(self) -> Iterator[Run]:
        run = self._sentinel.next
        while run is not None and run is not self._sentinel:
            yield run
            run = run.next

    def first(self) -> Run:
        """The run to be reused next; the queue must not be empty."""
        run = self._sentinel.next
        assert run is not None
        assert run is not self._sentinel
        return run

    def append(self, run: Run) -> None:
        """Add a run at the end: it is reused last."""
        last = self._sentinel.prev
        assert last is not None
        self._link(last, run)

    def insert_after(self, at: Run, run: Run) -> None:
        """Insert `run` directly behind `at`."""
        self._link(at, run)

    def remove(self, run: Run) -> None:
        """Remove a run, wherever it is in the queue."""
        before, after = run.prev, run.next
        assert before is not None
        assert after is not None
        before.next, after.prev = after, before
        run.prev = run.next = None
        self.blocks -= len(run.keys)

    def _link(self, before: Run, run: Run) -> None:
        after = before.next
        assert after is not None
        before.next = after.prev = run
        run.prev, run.next = before, after
        self.blocks += len(run.keys)
