"""The blocks that a lower tier holds, and the order in which it evicts them."""

from collections import OrderedDict

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

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self._blocks or block_hash in self._pinned

    def __len__(self) -> int:
        return len(self._blocks) + len(self._pinned)

    @property
    def vacant(self) -> int:
        """Slots that are neither used nor reserved."""
        return self.capacity - len(self) - self._reserved

    def reserve(self, count: int) -> None:
        """Reserve vacant slots."""
        self._reserved += count

    def unreserve(self, count: int) -> None:
        """Give reserved slots back."""
        self._reserved -= count

    def insert(self, block: StoredBlock) -> None:
        """Put a block into a reserved slot."""
        self._reserved -= 1
        self._blocks[block.hash] = block

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
        if not block.pins and self._pinned.pop(block.hash, None) is not None:
            self._blocks[block.hash] = block

    def evict(self) -> StoredBlock | None:
        """Remove and return the least recently used block that is not pinned; None if every block is pinned."""
        if not self._blocks:
            return None
        return self._blocks.popitem(last=False)[1]

    def blocks(self) -> list[StoredBlock]:
        """All blocks of the tier, pinned ones last."""
        return [*self._blocks.values(), *self._pinned.values()]

    def clear(self) -> None:
        """Forget all blocks. Pinned blocks are no longer found; transfers that read them still complete."""
        self._blocks.clear()
        self._pinned.clear()
