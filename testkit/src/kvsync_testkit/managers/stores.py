"""The mock engine's block table and tier store behind one interface: the only place where the kit touches them.

A *grip* is what one owner has of a store: reserved blocks, then registered ones that cannot be evicted while they are
held. Stores report what they evict by `on_removed`, and record every change with the engine's own `Recorder`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from kvsync_events import Event
from kvsync_mockpod.engine.log import TransitionLog
from kvsync_mockpod.engine.pool import BlockPool, BlockTable
from kvsync_mockpod.engine.recorder import Recorder
from kvsync_mockpod.engine.tiers import Eviction, StoredBlock, make_store
from kvsync_testkit.token_blocks import TokenBlock

OnRemoved = Callable[[bytes], None]


class Store(Protocol):
    """One tier's blocks."""

    @property
    def available(self) -> int:
        """Blocks that can be allocated now, evicting what is not held."""
        ...

    def allocate(self, count: int, after: Sequence[bytes]) -> Any:  # noqa: ANN401 - a grip is opaque to its holder
        """A grip on `count` blocks, and on the resident prefix `after` in front of them; needs `count <= available`."""
        ...

    def register(self, grip: Any, blocks: Sequence[TokenBlock]) -> list[bool]:  # noqa: ANN401
        """The grip's reserved blocks now hold these; per block, whether it was taken in (False: refused duplicate)."""
        ...

    def match(self, hashes: Sequence[bytes]) -> tuple[Any, int]:
        """A grip on the longest resident prefix, and its length."""
        ...

    def release(self, grip: Any) -> None:  # noqa: ANN401
        """Let go of everything in the grip."""
        ...

    def take_events(self) -> list[Event]:
        """The events since the last call."""
        ...


class DeviceStore:
    """G1: the engine's block table. A second registration of a hash is a second copy, as in vLLM."""

    def __init__(self, blocks: int, block_size: int, on_removed: OnRemoved, *, publish: bool) -> None:
        self._on_removed = on_removed
        self._recorder = Recorder(block_size, TransitionLog(0), publish=publish, keep_tokens=False)
        self._pool = BlockPool(blocks, self)

    @property
    def available(self) -> int:
        """As `Store`."""
        return self._pool.free

    def removed(self, hashes: list[Any], *, last: bool) -> None:
        """The pool evicted one copy of each of these."""
        self._recorder.removed(hashes, last=last)
        for one in hashes:
            self._on_removed(one)

    def allocate(self, count: int, after: Sequence[bytes]) -> BlockTable:
        """As `Store`."""
        table, _ = self.match(after)
        self._pool.allocate(table, count)
        return table

    def register(self, grip: BlockTable, blocks: Sequence[TokenBlock]) -> list[bool]:
        """As `Store`."""
        self._pool.store(grip, [block.hash for block in blocks])
        for chain in chains(blocks):
            self._recorder.stored(
                [block.hash for block in chain],
                chain[0].parent_hash,
                partial(_tokens, chain),
                partial(_no_extra_keys, len(chain)),
                None,
            )
        return [True] * len(blocks)

    def match(self, hashes: Sequence[bytes]) -> tuple[BlockTable, int]:
        """As `Store`."""
        table = BlockTable()
        hit = self._pool.lookup(list(hashes), len(hashes))
        self._pool.hold(table, hit)
        return table, hit.blocks

    def release(self, grip: BlockTable) -> None:
        """As `Store`."""
        self._pool.release(grip)

    def take_events(self) -> list[Event]:
        """As `Store`."""
        return self._recorder.take()


@dataclass(slots=True)
class _Pins:
    """Reserved slots, and blocks that are pinned."""

    reserved: int = 0
    blocks: list[StoredBlock] = field(default_factory=list)


class LowerStore:
    """G2 and G3: the tier store of the engine's offload path, with its eviction order and its duplication policy."""

    def __init__(
        self,
        blocks: int,
        block_size: int,
        medium: str,
        on_removed: OnRemoved,
        *,
        publish: bool,
        eviction: Eviction = "lru",
        duplicates: bool = False,
    ) -> None:
        self._on_removed = on_removed
        self._medium = medium
        self._recorder = Recorder(block_size, TransitionLog(0), publish=publish, keep_tokens=False)
        self._store = make_store(blocks, eviction)
        self._lineage = eviction == "lineage"
        self._duplicates = duplicates

    @property
    def available(self) -> int:
        """As `Store`."""
        return self._store.vacant + sum(block.copies for block in self._evictable())

    def allocate(self, count: int, after: Sequence[bytes]) -> _Pins:
        """As `Store`."""
        pins, _ = self.match(after)
        while self._store.vacant < count:
            victim = self._store.evict()
            assert victim is not None, "the caller asked for more than is available"
            self._recorder.tier_removed(self._medium, victim)
            self._on_removed(victim.hash)
        self._store.reserve(count)
        pins.reserved = count
        return pins

    def register(self, grip: _Pins, blocks: Sequence[TokenBlock]) -> list[bool]:
        """As `Store`."""
        taken = []
        for block in blocks:
            grip.reserved -= 1
            stored = self._store.get(block.hash)
            taken.append(stored is None or self._duplicates)
            if taken[-1]:
                fresh = StoredBlock(block.hash, block.parent_hash, block.tokens)
                self._store.insert(fresh)
                stored = stored or fresh
            else:
                self._store.unreserve(1)
            assert stored is not None
            self._store.pin(stored)
            grip.blocks.append(stored)
        for chain in chains([block for block, new in zip(blocks, taken, strict=True) if new]):
            stored_chain = [StoredBlock(block.hash, block.parent_hash, block.tokens) for block in chain]
            self._recorder.tier_stored(self._medium, stored_chain)
        return taken

    def _evictable(self) -> list[StoredBlock]:
        """Blocks that eviction can reach: not pinned and, with lineage, without a pinned descendant in the tier."""
        blocks = {block.hash: block for block in self._store.blocks()}
        stuck = {block.hash for block in blocks.values() if block.pins}
        if self._lineage:
            for h in list(stuck):
                parent = blocks[h].parent
                while parent in blocks and parent not in stuck:
                    stuck.add(parent)
                    parent = blocks[parent].parent
        return [block for h, block in blocks.items() if h not in stuck]

    def match(self, hashes: Sequence[bytes]) -> tuple[_Pins, int]:
        """As `Store`."""
        pins = _Pins()
        for one in hashes:
            block = self._store.get(one)
            if block is None:
                break
            self._store.pin(block)
            pins.blocks.append(block)
        return pins, len(pins.blocks)

    def release(self, grip: _Pins) -> None:
        """As `Store`."""
        self._store.unreserve(grip.reserved)
        for block in reversed(grip.blocks):
            self._store.unpin(block)
        grip.reserved = 0
        grip.blocks.clear()

    def take_events(self) -> list[Event]:
        """As `Store`."""
        return self._recorder.take()


def _tokens(chain: Sequence[TokenBlock]) -> list[int]:
    return [token for block in chain for token in block.tokens]


def _no_extra_keys(count: int) -> list[tuple[Any, ...] | None]:
    return [None] * count


def chains(blocks: Sequence[TokenBlock]) -> list[list[TokenBlock]]:
    """Blocks divided wherever one is not the child of the one before it."""
    found: list[list[TokenBlock]] = []
    for block in blocks:
        if found and found[-1][-1].hash == block.parent_hash:
            found[-1].append(block)
        else:
            found.append([block])
    return found
