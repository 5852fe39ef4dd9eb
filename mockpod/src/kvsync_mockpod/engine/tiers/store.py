"""The blocks a lower tier holds: least recently used leaves first, pinned ones never."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class StoredBlock:
    """A block's identity and content, and how many onboardings read it right now."""

    hash: bytes
    parent: bytes | None
    token_ids: tuple[int, ...]
    pins: int = 0


class TierStore:
    """A bounded table of blocks. Slots of blocks on their way in or out count as used."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[bytes, StoredBlock] = OrderedDict()
        self._reserved = 0
        """Slots promised to blocks on their way in, or still read by copies on their way out."""
        self._pinned: dict[bytes, StoredBlock] = {}

    def __contains__(self, block_hash: bytes) -> bool:
        return block_hash in self._blocks or block_hash in self._pinned

    def __len__(self) -> int:
        return len(self._blocks) + len(self._pinned)

    @property
    def vacant(self) -> int:
        """Slots nobody uses."""
        return self.capacity - len(self) - self._reserved

    def reserve(self, count: int) -> None:
        """Promise vacant slots."""
        self._reserved += count

    def unreserve(self, count: int) -> None:
        """Give promised slots back."""
        self._reserved -= count

    def insert(self, block: StoredBlock) -> None:
        """A block has arrived in a reserved slot."""
        self._reserved -= 1
        self._blocks[block.hash] = block

    def get(self, block_hash: bytes) -> StoredBlock | None:
        """The block, if it is here."""
        return self._blocks.get(block_hash) or self._pinned.get(block_hash)

    def pin(self, block: StoredBlock) -> None:
        """Keep a block from being evicted."""
        if not block.pins:
            self._pinned[block.hash] = self._blocks.pop(block.hash)
        block.pins += 1

    def unpin(self, block: StoredBlock) -> None:
        """Release one pin; the last makes the block the most recently used."""
        block.pins -= 1
        if not block.pins and self._pinned.pop(block.hash, None) is not None:
            self._blocks[block.hash] = block

    def evict(self) -> StoredBlock | None:
        """Take out the least recently used block that is not pinned; its slot is vacant. None if there is none."""
        if not self._blocks:
            return None
        return self._blocks.popitem(last=False)[1]

    def blocks(self) -> list[StoredBlock]:
        """All blocks here."""
        return [*self._blocks.values(), *self._pinned.values()]

    def clear(self) -> None:
        """Forget all blocks; pinned ones are no longer found but their readers may finish."""
        self._blocks.clear()
        self._pinned.clear()
