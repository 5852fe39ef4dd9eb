"""What one publisher holds: its blocks by id, their copies by slot, and what a match reads of them.

Work on many blocks is done in slices: the generators here yield whenever others should have their turn.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from kvsync_events import Hash
from kvsync_indexer.core.blocks import Block, block_id, key_tag
from kvsync_indexer.core.keys import mix
from kvsync_indexer.core.orphans import Orphans
from kvsync_indexer.core.protocol import MAX_COPIES, CoreLimits
from kvsync_indexer.core.remembered import Remembered
from kvsync_indexer.core.residency import Residency
from kvsync_indexer.core.slots import Slots

SLICE: Final = 512
"""Blocks that are worked on in one slice, which takes one or two milliseconds."""
AppliedCounts: TypeAlias = Counter[str]
"""What a batch has done so far, by field of `Applied`."""
Slices: TypeAlias = Iterator[None]
"""Work that yields after every slice."""


class Holdings:
    """The blocks of one publisher."""

    def __init__(self, limits: CoreLimits) -> None:
        self._limits = limits
        self.refused = 0
        self.rows = 0
        """Resident blocks, counted per slot."""
        self.slots = Slots()
        self._remembered = Remembered(limits.max_remembered)
        self._attaching: list[tuple[int, int]] = []
        """Id and prefix key of blocks whose waiting children are still to be attached."""
        self._left = SLICE
        self._empty()

    def forget(self) -> Slices:
        """Drop everything, slots and groups included."""
        freed = self._drop_blocks()
        self.slots = Slots()
        self._remembered = Remembered(self._limits.max_remembered)
        return freed

    def _empty(self) -> None:
        self.blocks: dict[int, Block] = {}
        """By id."""
        self.residency = Residency()
        self.orphans = Orphans()
        self.raw_hashes: dict[int, bytes] = {}
        """By id: the bytes of hashes that came as bytes."""
        self.rows = 0

    def _drop_blocks(self) -> Slices:
        """Drop every block at once, and give back the work of freeing their memory."""
        freed = _freeing(self.blocks, self.residency.masks, self.raw_hashes, *self.slots.members)
        self._empty()
        self.slots.drop_blocks()
        return freed

    def _is_spent(self, blocks: int = 1) -> bool:
        """Count work; True if the slice ends with it."""
        self._left -= blocks
        if self._left > 0:
            return False
        self._left = SLICE
        return True

    def _attach(self, block: Block, key: int, parent_tag: int, counts: AppliedCounts) -> None:
        """Give a block that is no longer counted as an orphan its prefix key."""
        block.prefix_key, block.parent_tag, block.local_hash, block.parent = key, parent_tag, None, None
        counts["attached"] += 1
        for slot in block.copies:
            self.residency.show(key, slot)

    def _attach_waiting(self, ident: int, key: int) -> None:
        """Have every block attached that waits for this one, and every block that waits for one of those."""
        self._attaching.append((ident, key))

    def _attach_more(self, counts: AppliedCounts) -> Slices:
        """Attach the blocks that `_attach_waiting` left to be attached."""
        while self._attaching:
            parent, parent_key = self._attaching.pop()
            for child in self.orphans.take_children(parent):
                block = self.blocks[child]
                assert block.local_hash is not None
                key = mix(parent_key, block.local_hash)
                self._attach(block, key, key_tag(parent_key), counts)
                self._attaching.append((child, key))
                if self._is_spent():
                    yield

    def _add_copy(
        self, ident: int, raw_hash: Hash, block: Block, slot: int, adds_copy: bool, counts: AppliedCounts
    ) -> bool:
        """Count the block in the slot; True if it was there already and gained a copy."""
        counts["stored"] += 1
        copies = block.copies.get(slot, 0)
        if copies:
            added = adds_copy and copies < MAX_COPIES
            block.copies[slot] = copies + added
            return added
        if not block.copies and isinstance(raw_hash, bytes):
            self.raw_hashes[ident] = raw_hash
        self._put(ident, block, slot, 1)
        return False

    def _put(self, ident: int, block: Block, slot: int, copies: int) -> None:
        block.copies[slot] = copies
        self.rows += 1
        self.slots.digests[slot].add(block_id(ident, block.size_number))
        self.slots.members[slot].add(ident)
        if block.prefix_key is not None:
            self.residency.show(block.prefix_key, slot)

    def _release(self, ident: int, block: Block, slot: int) -> None:
        if block.copies[slot] > 1:
            block.copies[slot] -= 1
        else:
            self._drop(ident, block, slot)

    def _drop(self, ident: int, block: Block, slot: int) -> None:
        self._take_out(ident, block, slot)
        if not block.copies and block.prefix_key is not None:
            self._remembered.add(ident, (block.prefix_key, block.parent_tag))

    def _take_out(self, ident: int, block: Block, slot: int) -> None:
        """Take all copies of a block out of a slot."""
        del block.copies[slot]
        self.rows -= 1
        self.slots.digests[slot].discard(block_id(ident, block.size_number))
        self.slots.members[slot].remove(ident)
        if block.prefix_key is not None:
            self.residency.hide(block.prefix_key, slot)
        if block.copies:
            return
        del self.blocks[ident]
        self.raw_hashes.pop(ident, None)
        if block.prefix_key is None:
            self.orphans.remove(ident, block)

    def restore_block(self, ident: int, block: Block, raw_hash: bytes | None, held: Iterable[tuple[int, int]]) -> None:
        """Put back a block as a snapshot describes it; `held` gives its copies by slot."""
        self.blocks[ident] = block
        if raw_hash is not None:
            self.raw_hashes[ident] = raw_hash
        if block.prefix_key is None:
            self.orphans.add(ident, block)
        for slot, copies in held:
            self._put(ident, block, slot, copies)


def _freeing(*containers: Any) -> Slices:  # noqa: ANN401  dicts and sets
    """Empty containers that nobody else has, slice by slice, because freeing many objects takes long."""
    for container in containers:
        pop = container.popitem if isinstance(container, dict) else container.pop
        while container:
            for _ in range(min(len(container), 8 * SLICE)):
                pop()
            yield
