"""A reference implementation of the device block table, with one object per block.

Blocks without a hash are interchangeable and only counted. Blocks with a hash are objects, so that several copies of
one hash can exist at the same time, each with its own holders and its own place in the reuse order.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol


class Block:
    """A physical block that holds the tokens of `hash`. It is in the reuse queue exactly while `holders` is 0."""

    __slots__ = ("hash", "holders")

    def __init__(self, block_hash: bytes | None, holders: int) -> None:
        self.hash = block_hash
        self.holders = holders


class BlockTable:
    """The blocks of one sequence: `held` blocks with a hash at the beginning, then `blanks` blocks without one."""

    __slots__ = ("blanks", "held")

    def __init__(self) -> None:
        self.held: list[Block] = []
        self.blanks = 0

    def __len__(self) -> int:
        return len(self.held) + self.blanks


class BlockSink(Protocol):
    """Receives every block that loses its hash."""

    def removed(self, block_hash: bytes, *, last: bool) -> None:
        """One copy of `block_hash` is gone; with `last` there is no other."""


class BlockPool:
    """A fixed number of blocks, a table of resident hashes and one reuse order.

    Every operation is O(blocks touched).

    Blanks are reused first (last freed first), then hashed blocks in the order in which they were freed, the end of a
    sequence before its beginning (vLLM 0.24 on). Without `blanks_first`, blanks take their place in the same order as
    hashed blocks.
    """

    def __init__(self, usable_blocks: int, sink: BlockSink, *, caching: bool = True, blanks_first: bool = True) -> None:
        self.usable = usable_blocks
        self.caching = caching
        self._sink = sink
        self._blanks_first = blanks_first
        self._blanks = usable_blocks
        self._queue: OrderedDict[Block, None] = OrderedDict()
        self._table: dict[bytes, Block | list[Block]] = {}

    @property
    def free(self) -> int:
        """Number of blocks that no sequence holds."""
        return self._blanks + len(self._queue)

    @property
    def resident(self) -> int:
        """Number of distinct hashes in the table."""
        return len(self._table)

    def copies(self, block_hash: bytes) -> int:
        """Number of physical blocks with this hash."""
        entry = self._table.get(block_hash)
        if entry is None:
            return 0
        return 1 if isinstance(entry, Block) else len(entry)

    def hashes(self) -> list[bytes]:
        """Resident hashes in the order in which they became resident."""
        return list(self._table)

    def lookup(self, hashes: Sequence[bytes], limit: int) -> list[Block]:
        """The longest resident prefix of `hashes`, at most `limit` blocks; the copy stored first is used."""
        found: list[Block] = []
        get = self._table.get
        for h in hashes[:limit]:
            entry = get(h)
            if entry is None:
                break
            found.append(entry if isinstance(entry, Block) else entry[0])
        return found

    def hold(self, table: BlockTable, blocks: list[Block]) -> None:
        """Add resident blocks to a table and hold them."""
        for block in blocks:
            if not block.holders:
                del self._queue[block]
            block.holders += 1
        table.held += blocks

    def allocate(self, table: BlockTable, count: int) -> None:
        """Add `count` blanks to a table, evicting hashed blocks if necessary. Requires `count <= free`."""
        table.blanks += count
        if count <= self._blanks:
            self._blanks -= count
            return
        count -= self._blanks
        self._blanks = 0
        for _ in range(count):
            block, _none = self._queue.popitem(last=False)
            if block.hash is not None:
                self._forget(block)

    def store(self, table: BlockTable, hashes: Sequence[bytes]) -> None:
        """Give hashes to the next blanks of a table."""
        entries = self._table
        for h in hashes:
            block = Block(h, 1)
            table.held.append(block)
            entry = entries.setdefault(h, block)
            if entry is not block:
                if isinstance(entry, Block):
                    entries[h] = [entry, block]
                else:
                    entry.append(block)
        table.blanks -= len(hashes)

    def release(self, table: BlockTable) -> None:
        """Release all blocks of a table."""
        if self._blanks_first or not self.caching:
            self._blanks += table.blanks
        else:
            self._queue.update((Block(None, 0), None) for _ in range(table.blanks))
        for block in reversed(table.held):
            block.holders -= 1
            if not block.holders:
                self._queue[block] = None
        table.held = []
        table.blanks = 0

    def unstore(self, table: BlockTable, first: int) -> None:
        """Remove the hashes of a table's blocks from index `first` on, where no other sequence holds them."""
        while len(table.held) > first and table.held[-1].holders == 1:
            self._forget(table.held.pop())
            table.blanks += 1

    def reset(self) -> bool:
        """Forget every hash; returns False while any block is held."""
        if self.free != self.usable:
            return False
        self._table.clear()
        self._queue.clear()
        self._blanks = self.usable
        return True

    def _forget(self, block: Block) -> None:
        assert block.hash is not None
        entry = self._table[block.hash]
        last = isinstance(entry, Block)
        if isinstance(entry, Block):
            del self._table[block.hash]
        else:
            entry.remove(block)
            if len(entry) == 1:
                self._table[block.hash] = entry[0]
        self._sink.removed(block.hash, last=last)
        block.hash = None
