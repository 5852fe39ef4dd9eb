"""Runs of consecutive cached blocks, and the queue in which idle ones wait to be reused.

Blocks of one chain that are stored, held and let go together are one object, so that a prompt of a thousand blocks
costs a handful of operations. A run is divided when a sequence holds only its beginning.
"""

from collections.abc import Iterator
from typing import Any


class Run:
    """Cached blocks in chain order, all held by the same `holders` sequences.

    A block hash names its whole prefix, so two chains that agree in one hash agree in everything before it.
    """

    __slots__ = ("copies", "holders", "keys", "next", "origin", "prev")

    def __init__(self, keys: list[Any], holders: int, origin: "Run | None" = None) -> None:
        self.keys: list[Any] = keys
        """Hashes; None for idle blocks without one (plain LRU order only)."""
        self.holders = holders
        self.copies: list[Run] = []
        """Later copies of the same block, oldest first; only on the first copy, and then one block long."""
        self.origin = origin
        """The run this one was cut from: a table that held both as one finds the beginning here."""
        self.prev: Run | None = None
        self.next: Run | None = None

    def common(self, hashes: list[Any], at: int, limit: int) -> int:
        """How many blocks from `hashes[at]` on this run shares (its first is known to be shared). O(log n)."""
        keys = self.keys
        high = min(len(keys), limit - at)
        if keys[high - 1] == hashes[at + high - 1]:
            return high
        low = 1
        while low < high - 1:  # keys[low-1] agrees, keys[high-1] does not
            middle = (low + high) >> 1
            if keys[middle - 1] == hashes[at + middle - 1]:
                low = middle
            else:
                high = middle
        return low


class ReuseQueue:
    """Idle runs in the order of reuse: a doubly linked list, each run consumed from its end (leaf first)."""

    def __init__(self) -> None:
        self._sentinel = Run([], 0)
        self.clear()

    def clear(self) -> None:
        """Forget all runs."""
        s = self._sentinel
        s.prev = s.next = s
        self.blocks = 0
        """Blocks in all runs."""

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
        """To the end: reused last."""
        last = self._sentinel.prev
        assert last is not None
        self._link(last, run)

    def insert_after(self, at: Run, run: Run) -> None:
        """Right behind `at`."""
        self._link(at, run)

    def remove(self, run: Run) -> None:
        """Take a run out, wherever it is."""
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
