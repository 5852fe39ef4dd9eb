"""The device block table: which block hashes are resident, who holds them, what is reused next.

Blocks without a hash are interchangeable and only counted. Hashed ones live in runs (`runs.py`). Resident hashes are
closed under prefixes: a sequence lets go of its blocks leaf first, so a block leaves the cache after all that follow
it. That is why the first hash of each run is the only index needed. Every operation costs runs touched, not blocks.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kvsync_mockpod.engine.runs import ReuseQueue, Run


class BlockTable:
    """What one sequence holds: `hashed` cached blocks (a prefix of it), then `blanks` without a hash."""

    __slots__ = ("blanks", "hashed", "parts")

    def __init__(self) -> None:
        self.parts: list[tuple[Run, int]] = []
        """Runs in chain order, with their length when they became part of this table."""
        self.hashed = 0
        self.blanks = 0

    def __len__(self) -> int:
        return self.hashed + self.blanks


@dataclass(slots=True)
class Hit:
    """The result of a lookup; valid until the pool changes."""

    runs: list[tuple[Run, int]] = field(default_factory=list)
    """Runs, and how many blocks from the beginning of each are hit."""
    blocks: int = 0
    idle: int = 0
    """Hit blocks that nobody holds: holding them takes them from the free ones."""


class BlockSink(Protocol):
    """Told of every block that loses its hash, in order."""

    def removed(self, hashes: list[Any], *, last: bool) -> None:
        """One copy of each of `hashes` is gone; `last`: no other copies are left."""


class BlockPool:
    """A fixed number of blocks, an index of resident hashes and one reuse order.

    Reuse order: blanks first, then hashed blocks in the order they were let go, the end of a sequence before its
    beginning (vLLM 0.24 on). With `blanks_first` off blanks queue up like the others.
    """

    def __init__(self, usable_blocks: int, sink: BlockSink, *, caching: bool = True, blanks_first: bool = True) -> None:
        self.usable = usable_blocks
        self.caching = caching
        self.blanks = usable_blocks
        """Free blocks without a hash, reused before any other."""
        self.resident = 0
        """Distinct hashes in the table."""
        self._sink = sink
        self._blanks_first = blanks_first
        self._queue = ReuseQueue()
        self._starts: dict[Any, Run] = {}

    @property
    def free(self) -> int:
        """Blocks nobody holds."""
        return self.blanks + self._queue.blocks

    def lookup(self, hashes: list[Any], limit: int) -> Hit:
        """The longest run of resident blocks from the first hash on, at most `limit`; first inserted copies."""
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
        """The table's owner now holds the hit blocks too."""
        for run, n in hit.runs:
            if n < len(run.keys):
                run = self._cut(run, n)
            if not run.holders:
                self._queue.remove(run)
            run.holders += 1
            table.parts.append((run, n))
        table.hashed += hit.blocks

    def allocate(self, table: BlockTable, count: int) -> None:
        """Give the owner `count` more blank blocks; hashed ones lose their hash. Needs `count <= free`."""
        table.blanks += count
        self.take(count)

    def take(self, count: int) -> None:
        """`count` blank blocks are free no more: whoever asked adds them to a table. Needs `count <= free`."""
        blanks = self.blanks
        if count > blanks:
            self.evict(count - blanks)
            self.blanks = 0
        else:
            self.blanks = blanks - count

    def evict(self, count: int) -> None:
        """Turn the next `count` blocks in reuse order into blanks."""
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
        """The owner's next blank blocks now hold these hashes."""
        table.blanks -= len(hashes)
        table.hashed += len(hashes)
        starts = self._starts
        for i, h in enumerate(hashes):
            first = starts.get(h)
            if first is None:  # then none of those after it is resident either
                self._append(table, hashes[i:] if i else hashes)
                return
            if len(first.keys) > 1:
                first = self._cut(first, 1)
            copy = Run([h], 1)
            first.copies.append(copy)
            table.parts.append((copy, 1))

    def store_one(self, table: BlockTable, block_hash: Hashable) -> None:
        """`store` for a single block, as every decoding sequence needs it again and again."""
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
        """The owner lets go of everything, leaf first."""
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
        """Take back the hashes of the owner's blocks from index `first` on, as far as nobody else holds them."""
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
        """Forget every hash; refused (False) while any block is held."""
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
        """New blocks behind the table's last: in its last run if that is the owner's alone."""
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
        """Divide a run; `run` keeps the end and its place, the new one has the first `at` blocks."""
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
        """All blocks of a run lose their hash (leaf first); a later copy takes the place of a first one."""
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
