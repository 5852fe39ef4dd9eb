"""The device block table: which block hashes are resident, how many sequences hold them, and what is reused next.

Blocks without a hash ("blanks") are interchangeable and only counted. Hashed blocks are kept in runs (`runs.py`). A
sequence releases its blocks leaf first, so a block leaves the cache only after all blocks that follow it: the resident
hashes are closed under prefixes. The first hash of each run is therefore the only index needed, and every operation
costs time per run, not per block.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kvsync_mockpod.engine.runs import ReuseQueue, Run


class BlockTable:
    """The blocks of one sequence: `hashed` cached blocks at the beginning, then `blanks` blocks without a hash."""

    __slots__ = ("blanks", "hashed", "parts")

    def __init__(self) -> None:
        self.parts: list[tuple[Run, int]] = []
        """Runs in chain order, each with its length at the time when it became part of this table."""
        self.hashed = 0
        self.blanks = 0

    def __len__(self) -> int:
        return self.hashed + self.blanks


@dataclass(slots=True)
class Hit:
    """The result of a lookup; valid until the pool changes."""

    runs: list[tuple[Run, int]] = field(default_factory=list)
    """Runs, each with the number of blocks hit from its beginning."""
    blocks: int = 0
    idle: int = 0
    """Hit blocks that no sequence holds. Holding them reduces the number of free blocks."""


class BlockSink(Protocol):
    """Receives every block that loses its hash, in order."""

    def removed(self, hashes: list[Any], *, last: bool) -> None:
        """One copy of each of `hashes` is gone; with `last` there are no other copies left."""


class BlockPool:
    """A fixed number of blocks, an index of resident hashes and one reuse order.

    Blanks are reused first, then hashed blocks in the order of their release, the end of a sequence before its
    beginning (vLLM 0.24 on). Without `blanks_first`, blanks take their place in the same order as hashed blocks.
    """

    def __init__(self, usable_blocks: int, sink: BlockSink, *, caching: bool = True, blanks_first: bool = True) -> None:
        self.usable = usable_blocks
        self.caching = caching
        self.blanks = usable_blocks
        """Free blocks without a hash, which are reused before all others."""
        self.resident = 0
        """Number of distinct hashes in the table."""
        self._sink = sink
        self._blanks_first = blanks_first
        self._queue = ReuseQueue()
        self._starts: dict[Any, Run] = {}

    @property
    def free(self) -> int:
        """Number of blocks that no sequence holds."""
        return self.blanks + self._queue.blocks

    def lookup(self, hashes: list[Any], limit: int) -> Hit:
        """The longest resident prefix of `hashes`, at most `limit` blocks; the copy stored first is used."""
        hit = Hit()
        starts = self._starts
        at = 0
        while at < limit:
            run = starts.get(hashes[at])
            if run is None:
                break
            n = run.common(hashes, at, limit)
            hit.runs.append((run, n))
            if not run.holders:
                hit.idle += n
            at += n
        hit.blocks = at
        return hit

    def hold(self, table: BlockTable, hit: Hit) -> None:
        """Add the hit blocks to a table and hold them."""
        for run, n in hit.runs:
            if n < len(run.keys):
                run = self._cut(run, n)
            if not run.holders:
                self._queue.remove(run)
            run.holders += 1
            table.parts.append((run, n))
        table.hashed += hit.blocks

    def allocate(self, table: BlockTable, count: int) -> None:
        """Add `count` blanks to a table, evicting hashed blocks if necessary. Requires `count <= free`."""
        table.blanks += count
        self.take(count)

    def take(self, count: int) -> None:
        """Take `count` blanks from the free blocks; the caller adds them to a table. Requires `count <= free`."""
        blanks = self.blanks
        if count > blanks:
            self.evict(count - blanks)
            self.blanks = 0
        else:
            self.blanks = blanks - count

    def evict(self, count: int) -> None:
        """Turn the next `count` blocks of the reuse order into blanks."""
        queue = self._queue
        self.blanks += count
        run = queue.first() if count else None
        if count == 1 and run is not None and len(run.keys) > 1 and run.keys[0] is not None:
            gone = [run.keys.pop()]
            queue.blocks -= 1
            self.resident -= 1
            self._sink.removed(gone, last=True)
            return
        while count:
            run = queue.first()
            keys = run.keys
            if run.copies or len(keys) <= count:
                count -= len(keys)
                queue.remove(run)
                self._drop(run)
            else:
                gone = keys[-count:]
                del keys[-count:]
                queue.blocks -= count
                count = 0
                if gone[0] is not None:
                    gone.reverse()
                    self.resident -= len(gone)
                    self._sink.removed(gone, last=True)

    def store(self, table: BlockTable, hashes: list[Any]) -> None:
        """Give hashes to the next blanks of a table."""
        table.blanks -= len(hashes)
        table.hashed += len(hashes)
        starts = self._starts
        for i, h in enumerate(hashes):
            first = starts.get(h)
            if first is None:  # then no block after it is resident either
                self._append(table, hashes[i:] if i else hashes)
                return
            if len(first.keys) > 1:
                first = self._cut(first, 1)
            copy = Run([h], 1)
            first.copies.append(copy)
            table.parts.append((copy, 1))

    def store_one(self, table: BlockTable, block_hash: Hashable) -> None:
        """Give a hash to one block: `store`, optimised for decoding sequences, which need it repeatedly."""
        starts = self._starts
        if table.parts and block_hash not in starts:
            run, length = table.parts[-1]
            keys = run.keys
            if run.holders == 1 and not run.copies and starts.get(keys[0]) is run:
                keys.append(block_hash)
                table.parts[-1] = (run, length + 1)
                table.hashed += 1
                table.blanks -= 1
                self.resident += 1
                return
        self.store(table, [block_hash])

    def release(self, table: BlockTable) -> None:
        """Release all blocks of a table, leaf first."""
        if self._blanks_first or not self.caching:
            self.blanks += table.blanks
        elif table.blanks:
            self._queue.append(Run([None] * table.blanks, 0))
        for run, length in reversed(table.parts):
            while length:
                length -= len(run.keys)
                run.holders -= 1
                if not run.holders:
                    self._queue.append(run)
                if length:
                    assert run.origin is not None
                    run = run.origin
        table.parts = []
        table.hashed = table.blanks = 0

    def unstore(self, table: BlockTable, first: int) -> None:
        """Remove the hashes of a table's blocks from index `first` on, up to the first block that another sequence
        holds.
        """
        while table.hashed > first:
            run, length = table.parts[-1]
            if run.holders > 1:
                return
            excess = min(len(run.keys), table.hashed - first)
            if excess < len(run.keys):
                self._cut(run, len(run.keys) - excess)
            table.parts.pop()
            if length > excess:
                assert run.origin is not None
                table.parts.append((run.origin, length - excess))
            self._drop(run)
            table.hashed -= excess
            table.blanks += excess

    def reset(self) -> bool:
        """Forget every hash; returns False and changes nothing while any block is held."""
        if self.free != self.usable:
            return False
        self._starts.clear()
        self._queue.clear()
        self.blanks = self.usable
        self.resident = 0
        return True

    def contents(self) -> list[tuple[Any, int]]:
        """Resident hashes with the number of their copies."""
        return [(h, 1 + len(run.copies)) for run in self._starts.values() for h in run.keys]

    def _append(self, table: BlockTable, hashes: list[Any]) -> None:
        """Add newly stored blocks to a table: to its last run, if no other sequence holds it, or as a new run."""
        self.resident += len(hashes)
        if table.parts:
            run, length = table.parts[-1]
            if run.holders == 1 and not run.copies and self._starts.get(run.keys[0]) is run:
                run.keys += hashes
                table.parts[-1] = (run, length + len(hashes))
                return
        run = Run(list(hashes), 1)
        self._starts[hashes[0]] = run
        table.parts.append((run, len(hashes)))

    def _cut(self, run: Run, at: int) -> Run:
        """Split a run and return the new one, which gets the first `at` blocks; `run` keeps the rest and its place."""
        head = Run(run.keys[:at], run.holders, run.origin)
        del run.keys[:at]
        run.origin = head
        self._starts[head.keys[0]] = head
        self._starts[run.keys[0]] = run
        if not run.holders:
            self._queue.blocks -= at
            self._queue.insert_after(run, head)
        return head

    def _drop(self, run: Run) -> None:
        """Remove the hashes of a run, leaf first. If it was the first copy, the next copy takes its place."""
        keys = run.keys
        if keys[0] is None:
            return
        first = self._starts[keys[0]]
        if first is not run:
            first.copies.remove(run)
            self._sink.removed(keys, last=False)
        elif run.copies:
            heir = run.copies[0]
            heir.copies = run.copies[1:]
            run.copies = []
            self._starts[keys[0]] = heir
            self._sink.removed(keys, last=False)
        else:
            del self._starts[keys[0]]
            self.resident -= len(keys)
            keys.reverse()
            self._sink.removed(keys, last=True)
