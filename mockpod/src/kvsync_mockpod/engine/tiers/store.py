"""The blocks that a lower tier holds, and the order in which it evicts them."""

import heapq
from collections import Counter, OrderedDict
from typing import Literal

from kvsync_mockpod.engine.tiers.blocks import StoredBlock


class TierStore:
    """A bounded table of blocks that evicts the least recently used one; pinned blocks are never evicted.

    Slots of blocks that are on their way in, or are being copied out, count as used.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[bytes, StoredBlock] = OrderedDict()
        self._reserved = 0
        """Slots reserved for blocks on their way in, or still read by copies on their way out."""
        self._pinned: dict[bytes, StoredBlock] = {}
        self._extra = 0
        """Slots of copies beyond the first of each block."""

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self._blocks or block_hash in self._pinned

    def __len__(self) -> int:
        return len(self._blocks) + len(self._pinned)

    @property
    def vacant(self) -> int:
        """Slots that are neither used nor reserved."""
        return self.capacity - len(self) - self._extra - self._reserved

    def reserve(self, count: int) -> None:
        """Reserve vacant slots."""
        self._reserved += count

    def unreserve(self, count: int) -> None:
        """Give reserved slots back."""
        self._reserved -= count

    def insert(self, block: StoredBlock) -> None:
        """Put a block into a reserved slot; if the tier has the block, as another copy of it."""
        self._reserved -= 1
        present = self.get(block.hash)
        if present is None:
            self._blocks[block.hash] = block
        else:
            present.copies += 1
            self._extra += 1

    def get(self, block_hash: bytes) -> StoredBlock | None:
        """The block with this hash, None if the tier does not hold it."""
        return self._blocks.get(block_hash) or self._pinned.get(block_hash)

    def pin(self, block: StoredBlock) -> None:
        """Protect a block from eviction; pins are counted."""
        if not block.pins:
            self._pinned[block.hash] = self._blocks.pop(block.hash)
        block.pins += 1

    def unpin(self, block: StoredBlock) -> None:
        """Release one pin. Releasing the last one makes the block the most recently used."""
        block.pins -= 1
        if not block.pins and self._pinned.get(block.hash) is block:
            self._blocks[block.hash] = self._pinned.pop(block.hash)

    def evict(self) -> StoredBlock | None:
        """Take one copy of the least recently used block that is not pinned; None if every block is pinned."""
        if not self._blocks:
            return None
        block = next(iter(self._blocks.values()))
        if not self._take_copy(block):
            del self._blocks[block.hash]
        return block

    def _take_copy(self, block: StoredBlock) -> bool:
        """Take a copy beyond the first; False if there is none."""
        if block.copies == 1:
            return False
        block.copies -= 1
        self._extra -= 1
        return True

    def blocks(self) -> list[StoredBlock]:
        """All blocks of the tier, pinned ones last."""
        return [*self._blocks.values(), *self._pinned.values()]

    def clear(self) -> None:
        """Forget all blocks. Pinned blocks are no longer found; transfers that read them still complete."""
        self._blocks.clear()
        self._pinned.clear()
        self._extra = 0

    def lose(self) -> None:
        """Forget all blocks and all reservations: whatever was on its way in or out is lost as well."""
        self.clear()
        self._reserved = 0


class LineageStore(TierStore):
    """Evicts the least recently used block of those that have no child in the tier.

    A block is therefore never evicted before its children, and what the tier holds of a prompt stays usable from its
    beginning. Each operation takes O(log n).
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._children: Counter[bytes] = Counter()
        self._uses = 0
        self._used: dict[bytes, int] = {}
        """Number of the last use of each block."""
        self._leaves: list[tuple[int, bytes]] = []
        """Heap of blocks by last use; entries that are out of date are dropped when they reach the top."""

    def insert(self, block: StoredBlock) -> None:
        """Put a block into a reserved slot; if the tier has the block, as another copy of it."""
        known = block.hash in self
        super().insert(block)
        if not known:
            if block.parent is not None:
                self._children[block.parent] += 1
            self._use(block.hash)

    def unpin(self, block: StoredBlock) -> None:
        """Release one pin. Releasing the last one makes the block the most recently used."""
        super().unpin(block)
        if self._blocks.get(block.hash) is block:
            self._use(block.hash)

    def evict(self) -> StoredBlock | None:
        """Take one copy of the least recently used block without children; None if there is none but pinned ones."""
        while self._leaves:
            used, h = self._leaves[0]
            block = self._blocks.get(h)
            if block is None or self._used[h] != used or self._children[h]:
                heapq.heappop(self._leaves)
                continue
            if not self._take_copy(block):
                heapq.heappop(self._leaves)
                self._forget(block)
            return block
        return None

    def clear(self) -> None:
        """Forget all blocks. Pinned blocks are no longer found; transfers that read them still complete."""
        super().clear()
        self._children.clear()
        self._used.clear()
        self._leaves.clear()

    def _use(self, block_hash: bytes) -> None:
        self._uses += 1
        self._used[block_hash] = self._uses
        if not self._children[block_hash]:
            heapq.heappush(self._leaves, (self._uses, block_hash))

    def _forget(self, block: StoredBlock) -> None:
        del self._blocks[block.hash], self._used[block.hash]
        if not self._children[block.hash]:
            del self._children[block.hash]
        parent = block.parent
        if parent is None:
            return
        self._children[parent] -= 1
        if not self._children[parent]:
            del self._children[parent]
            if parent in self._blocks:
                heapq.heappush(self._leaves, (self._used[parent], parent))


Eviction = Literal["lru", "lineage"]


def make_store(capacity: int, eviction: Eviction) -> TierStore:
    """The store with this eviction order: the least recently used block, or such a block without children."""
    return LineageStore(capacity) if eviction == "lineage" else TierStore(capacity)
