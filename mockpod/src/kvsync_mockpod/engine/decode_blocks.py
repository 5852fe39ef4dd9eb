"""The blocks of sequences that only decode: when each needs the next one, and when each completes one.

Every `block_size` steps a sequence needs a block and completes one, so it waits under the number of such a step modulo
the block size. If anybody hears of single blocks (events, log, kept tokens) or can hit them at once, each is
completed in its step (`EagerBlocks`). Otherwise only the room is taken step by step, which is all that others can notice,
and the blocks are written down when the sequence leaves (`DeferredBlocks`). A property test holds both to step by step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from operator import itemgetter

from kvsync_mockpod.engine.sequence import Sequence
from kvsync_mockpod.engine.state import EngineState

Chunks = Iterable[tuple[Sequence, int]]
_by_order = itemgetter(0)


def make_decode_blocks(state: EngineState) -> "DecodeBlocks":
    """What suits the engine: blocks may be written down later if nobody hears of them and nobody can hit them."""
    later = state.recorder.quiet and state.executor.outputs_are_distinct
    return DeferredBlocks(state) if later else EagerBlocks(state)


class DecodeBlocks(ABC):
    """Keeps the blocks of decoding sequences; `tick` counts the steps that they have done together."""

    def __init__(self, state: EngineState) -> None:
        self._pool = state.pool
        self._manager = state.manager
        self._executor = state.executor
        self._size = state.config.block_size
        self.due: dict[int, int] = {}
        """How much there is to do in a step, by its tick modulo the block size; nothing where there is no entry."""

    def clear(self) -> None:
        """Nobody decodes."""
        self.due.clear()

    @abstractmethod
    def join(self, seq: Sequence, tick: int) -> None:
        """A sequence decodes from this tick on."""

    @abstractmethod
    def part(self, seq: Sequence, tick: int) -> None:
        """A sequence, brought up to date, decodes no more."""

    @abstractmethod
    def fresh(self, tick: int) -> int:
        """Free blocks that a step takes."""

    @abstractmethod
    def grow(self, tick: int, chunks: Chunks) -> None:
        """One step's blocks, and those of its prompt chunks in between, in the order of the batch."""

    def sync(self, seq: Sequence, tick: int) -> None:
        """Bring the sequence's counters and output up to the present."""
        steps = tick - seq.joined
        if steps:
            seq.output += self._executor.samples(seq.request, len(seq.output), steps)
            seq.computed += steps
            seq.total += steps
            seq.joined = tick

    def _add(self, residue: int, count: int) -> None:
        left = self.due.get(residue, 0) + count
        if left:
            self.due[residue] = left
        else:
            del self.due[residue]


class DeferredBlocks(DecodeBlocks):
    """Takes room in the step that needs it; whose it is and what is in it follows when the sequence is looked at."""

    def join(self, seq: Sequence, tick: int) -> None:
        """Counted among those that need a block in the same steps."""
        self._add((tick - seq.computed) % self._size, 1)

    def part(self, seq: Sequence, tick: int) -> None:
        """Counted out."""
        self._add((tick - seq.computed) % self._size, -1)

    def fresh(self, tick: int) -> int:
        """One for each sequence counted."""
        return self.due.get(tick % self._size, 0)

    def grow(self, tick: int, chunks: Chunks) -> None:
        """Take the room."""
        count = self.fresh(tick)
        if count:
            self._pool.take(count)
        for seq, tokens in chunks:
            self._manager.grow(seq, tokens)

    def sync(self, seq: Sequence, tick: int) -> None:
        """The room taken for it becomes its own, and what is complete in it gets its hashes."""
        super().sync(seq, tick)
        table = seq.table
        table.blanks += -(-seq.computed // self._size) - len(table)
        self._manager.cache(seq, seq.computed)


class EagerBlocks(DecodeBlocks):
    """Allocates and completes each block in its step, in the order of the batch."""

    def __init__(self, state: EngineState) -> None:
        super().__init__(state)
        self._tokens_needed = state.needs_tokens
        self._caching = state.config.enable_prefix_caching
        self._allocate: dict[int, list[tuple[int, Sequence]]] = {}
        self._store: dict[int, list[tuple[int, Sequence]]] = {}

    def clear(self) -> None:
        """Nobody waits for any step."""
        super().clear()
        self._allocate.clear()
        self._store.clear()

    def join(self, seq: Sequence, tick: int) -> None:
        """Wait for the steps in which it needs a block and in which it completes one."""
        for table, residue in self._places(seq, tick):
            entries = table.setdefault(residue, [])
            entries.append((seq.order, seq))
            if len(entries) > 1 and entries[-2][0] > seq.order:
                entries.sort(key=_by_order)
            self._add(residue, 1)

    def part(self, seq: Sequence, tick: int) -> None:
        """Wait no more."""
        for table, residue in self._places(seq, tick):
            table[residue].remove((seq.order, seq))
            self._add(residue, -1)

    def fresh(self, tick: int) -> int:
        """One for each sequence that waits for this step."""
        return len(self._allocate.get(tick % self._size, ()))

    def grow(self, tick: int, chunks: Chunks) -> None:
        """Allocate and complete."""
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
        """The sequence's last block is full with this step: it gets its hash and is announced."""
        if self._caching:
            if self._tokens_needed:
                self.sync(seq, tick)
            self._manager.store_next(seq)

    def _places(self, seq: Sequence, tick: int) -> tuple[tuple[dict[int, list[tuple[int, Sequence]]], int], ...]:
        base = tick - seq.computed
        return (self._allocate, base % self._size), (self._store, (base - 1) % self._size)
