"""Block allocation and completion for sequences that only decode.

Every `block_size` steps a decoding sequence needs one new block and completes one. Sequences are therefore grouped by
the step number, modulo the block size, in which that happens. There are two ways to do it. `EagerBlocks` allocates and
completes each block in its own step; it is needed if per-block events or logs are enabled, or if a prompt could hit a
block as soon as it is complete. `DeferredBlocks` only takes free blocks from the pool in each step and assigns and
hashes them when the sequence leaves. A property test checks that both give the same result as single steps.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from operator import itemgetter

from kvsync_mockpod.engine.sequence import Sequence
from kvsync_mockpod.engine.state import EngineState

Chunks = Iterable[tuple[Sequence, int]]
_by_order = itemgetter(0)


def make_decode_blocks(state: EngineState) -> "DecodeBlocks":
    """Choose deferred blocks if no transition has to be recorded in its step and no prompt can hit decoded blocks."""
    later = not state.recorder.needs_steps and state.executor.outputs_are_distinct
    return DeferredBlocks(state) if later else EagerBlocks(state)


class DecodeBlocks(ABC):
    """Keeps the blocks of decoding sequences. `tick` counts the steps that they have done together."""

    def __init__(self, state: EngineState) -> None:
        self._pool = state.pool
        self._manager = state.manager
        self._executor = state.executor
        self._size = state.config.block_size
        self.due: dict[int, int] = {}
        """Amount of work per step, by tick modulo the block size; a missing entry means none."""

    def clear(self) -> None:
        """Forget all sequences."""
        self.due.clear()

    @abstractmethod
    def add(self, seq: Sequence, tick: int) -> None:
        """Add a sequence that decodes from this tick on."""

    @abstractmethod
    def remove(self, seq: Sequence, tick: int) -> None:
        """Remove a sequence, which has been brought up to date with `sync`."""

    @abstractmethod
    def fresh(self, tick: int) -> int:
        """Number of free blocks that the step at `tick` takes."""

    @abstractmethod
    def grow(self, tick: int, chunks: Chunks) -> None:
        """Take the blocks of one step, including those of its prompt chunks, in batch order."""

    def sync(self, seq: Sequence, tick: int) -> None:
        """Bring the sequence's counters and output up to date."""
        steps = tick - seq.synced_tick
        if steps:
            seq.output += self._executor.samples(seq.request, len(seq.output), steps)
            seq.computed += steps
            seq.total += steps
            seq.synced_tick = tick

    def _count(self, residue: int, count: int) -> None:
        left = self.due.get(residue, 0) + count
        if left:
            self.due[residue] = left
        else:
            del self.due[residue]


class DeferredBlocks(DecodeBlocks):
    """Takes blocks from the pool when they are needed, and assigns and hashes them in `sync`."""

    def add(self, seq: Sequence, tick: int) -> None:
        """Count the sequence among those that need a block in the same steps."""
        self._count((tick - seq.computed) % self._size, 1)

    def remove(self, seq: Sequence, tick: int) -> None:
        """Remove the sequence from that count."""
        self._count((tick - seq.computed) % self._size, -1)

    def fresh(self, tick: int) -> int:
        """One block per sequence counted for this step."""
        return self.due.get(tick % self._size, 0)

    def grow(self, tick: int, chunks: Chunks) -> None:
        """Take the blocks from the pool without assigning them."""
        count = self.fresh(tick)
        if count:
            self._pool.take(count)
        for seq, tokens in chunks:
            self._manager.grow(seq, tokens)

    def sync(self, seq: Sequence, tick: int) -> None:
        """Bring the counters up to date, give the sequence the blocks taken for it, and hash the complete ones."""
        super().sync(seq, tick)
        table = seq.table
        table.blanks += -(-seq.computed // self._size) - len(table)
        self._manager.cache(seq, seq.computed)


class EagerBlocks(DecodeBlocks):
    """Allocates and completes each block in its own step, in batch order."""

    def __init__(self, state: EngineState) -> None:
        super().__init__(state)
        self._tokens_needed = state.needs_tokens
        self._caching = state.config.enable_prefix_caching
        self._allocate: dict[int, list[tuple[int, Sequence]]] = {}
        self._store: dict[int, list[tuple[int, Sequence]]] = {}

    def clear(self) -> None:
        """Forget all sequences."""
        super().clear()
        self._allocate.clear()
        self._store.clear()

    def add(self, seq: Sequence, tick: int) -> None:
        """Register the steps in which the sequence needs a block and in which it completes one."""
        for table, residue in self._places(seq, tick):
            entries = table.setdefault(residue, [])
            entries.append((seq.order, seq))
            if len(entries) > 1 and entries[-2][0] > seq.order:
                entries.sort(key=_by_order)
            self._count(residue, 1)

    def remove(self, seq: Sequence, tick: int) -> None:
        """Remove the sequence from these steps."""
        for table, residue in self._places(seq, tick):
            table[residue].remove((seq.order, seq))
            self._count(residue, -1)

    def fresh(self, tick: int) -> int:
        """One block per sequence registered for this step."""
        return len(self._allocate.get(tick % self._size, ()))

    def grow(self, tick: int, chunks: Chunks) -> None:
        """Allocate and complete the blocks of this step."""
        residue = tick % self._size
        allocate, store = self._allocate.get(residue, ()), self._store.get(residue, ())
        if chunks or (allocate and store):
            work = [(order, 0, seq, 0) for order, seq in allocate]
            work += [(order, 1, seq, 0) for order, seq in store]
            work += [(seq.order, 2, seq, tokens) for seq, tokens in chunks]
            work.sort(key=_by_order)
            for _order, kind, seq, tokens in work:
                if kind == 0:
                    self._pool.allocate(seq.table, 1)
                elif kind == 1:
                    self._complete(seq, tick)
                else:
                    self._manager.grow(seq, tokens)
            return
        for _order, seq in allocate:
            self._pool.allocate(seq.table, 1)
        for _order, seq in store:
            self._complete(seq, tick)

    def _complete(self, seq: Sequence, tick: int) -> None:
        """Hash and announce the sequence's last block, which this step fills."""
        if self._caching:
            if self._tokens_needed:
                self.sync(seq, tick)
            self._manager.store_next(seq)

    def _places(self, seq: Sequence, tick: int) -> tuple[tuple[dict[int, list[tuple[int, Sequence]]], int], ...]:
        base = tick - seq.computed
        return (self._allocate, base % self._size), (self._store, (base - 1) % self._size)
