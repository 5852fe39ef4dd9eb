"""One publisher's blocks in pure Python: what is resident, what its content is, and what is not known yet.

A block is identified by the engine's hash, of which only `engine_hash` counts. Two things are kept apart:

- *Residency*: copies by slot. They are counted from events, whether or not the content is known.
- *Content*: the block's prefix key, which is known as soon as the block's chain back to a root is. Until then the block
  is an orphan: it has its local hash and its parent's hash, or neither (if it was announced without tokens), and it is
  never matched.

Content is only looked up by prefix key. A block that was removed and comes back is therefore followed by its
descendants again, and a block whose ancestor is gone is not reached. The first content of a hash is kept as long as the
hash is resident.

**Copies.** Storing a resident block again adds a copy, as vLLM does when it recomputes the last block of a fully cached
prompt. There are three exceptions, all of which claim less rather than more:

- An event without parent that names several blocks looks like a report (`kv_cache_report_mode: full`): blocks that are
  resident already gain nothing.
- An event without parent that names one block looks like a recomputed prompt of one block: it gains a copy, which is
  taken back if a later event of the same batch continues from that block, because then it was a report that is followed
  by the rest of the prompt.
- An event without tokens gains nothing, because offload tiers hold a hash once.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TypeAlias

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, EventBatch, Hash
from kvsync_indexer.core.admission import check_batch
from kvsync_indexer.core.blocks import Block, engine_hash, key_tag, unsigned
from kvsync_indexer.core.chain import has_chain, read_chain
from kvsync_indexer.core.groups import medium_of
from kvsync_indexer.core.keys import mix
from kvsync_indexer.core.orphans import Orphans
from kvsync_indexer.core.protocol import MAX_COPIES, Applied, CoreLimits
from kvsync_indexer.core.residency import Residency
from kvsync_indexer.core.slots import Slots

AppliedCounts: TypeAlias = Counter[str]
"""What a batch has done so far, by field of `Applied`."""


class Publisher:
    """The state of one publisher. It is not thread-safe, and `apply` takes only batches that `check` admitted."""

    def __init__(self, name: str, model: str, seed: int, limits: CoreLimits) -> None:
        self.name = name
        self.model = model
        self._seed = seed
        self._limits = limits
        self.conflicts = 0
        self.refused = 0
        self.rows = 0
        """Resident blocks, counted per slot."""
        self.forget()

    def forget(self) -> int:
        """Drop everything, slots and groups included, and return how many rows were dropped."""
        dropped = self.rows
        self.slots = Slots()
        self._drop_blocks()
        return dropped

    def _drop_blocks(self) -> None:
        self.blocks: dict[int, Block] = {}
        """By engine hash."""
        self.residency = Residency()
        self.orphans = Orphans()
        self.raw_hashes: dict[int, bytes] = {}
        """By engine hash: the bytes of those that came as bytes."""
        self.rows = 0
        self._tentative: dict[tuple[int, int], None] = {}
        """Hash and slot of copies that the batch being applied added, and that may still turn out to be reports."""
        for digest in self.slots.digests:
            digest.clear()

    def check(self, batch: EventBatch) -> None:
        """Raise LimitError if applying the batch could exceed a hard limit."""
        check_batch(batch, self.name, self.slots, self.rows, self._limits.max_blocks)

    def apply(self, batch: EventBatch) -> Applied:
        """Apply an admitted batch."""
        counts: AppliedCounts = Counter(unknown_events=batch.unknown_events)
        self._tentative.clear()
        for event in batch.events:
            counts["events"] += 1
            if isinstance(event, BlockStored):
                self._store(event, counts)
            elif isinstance(event, BlockRemoved):
                self._remove(event, counts)
            else:
                counts["cleared"] += self._clear(event)
        return Applied(**counts)

    # -- stored events -----------------------------------------------------------------------------------------------

    def _store(self, event: BlockStored, counts: AppliedCounts) -> None:
        slot = self.slots.learn(event)
        parent = event.parent_block_hash
        if parent is not None and self._tentative:
            self._take_back(engine_hash(parent), slot)
        with_tokens = event.block_size > 0 and bool(event.token_ids)
        if with_tokens and self.slots.learn_size(event.group_idx, event.block_size) and has_chain(event):
            self._store_chain(event, slot, counts)
        else:
            self._store_hashes(event, slot, with_tokens and parent is not None, counts)

    def _store_hashes(self, event: BlockStored, slot: int, adds_copy: bool, counts: AppliedCounts) -> None:
        """Store an event that does not say for certain what its hashes are."""
        for raw_hash in event.block_hashes:
            hashed = engine_hash(raw_hash)
            block = self.blocks.get(hashed) or self._add_orphan(hashed, None, None, counts)
            if block is not None:
                self._add_copy(hashed, raw_hash, block, slot, adds_copy, counts)

    def _store_chain(self, event: BlockStored, slot: int, counts: AppliedCounts) -> None:
        """Store an event whose tokens say what each of its hashes is."""
        chain = read_chain(event, self.model, self._seed)
        parent = None if event.parent_block_hash is None else unsigned(event.parent_block_hash)
        if parent is None:
            parent_key, parent_tag = chain.root, 0
        else:
            above = self.blocks.get(engine_hash(parent))
            parent_key = None if above is None else above.prefix_key
            parent_tag = key_tag(parent_key)
        one_block_root = parent is None and len(event.block_hashes) == 1
        adds_copy = parent is not None or one_block_root
        for raw_hash, local_hash in zip(event.block_hashes, chain.local_hashes, strict=True):
            key = None if parent_key is None else mix(parent_key, local_hash)
            hashed = engine_hash(raw_hash)
            block = self._learn_content(hashed, key, parent_tag, local_hash, parent, counts)
            if block is not None:
                added = self._add_copy(hashed, raw_hash, block, slot, adds_copy, counts)
                if added and one_block_root:
                    self._tentative[hashed, slot] = None
                if key is None:
                    key = block.prefix_key
            parent_key, parent_tag, parent = key, key_tag(key), unsigned(raw_hash)

    def _learn_content(
        self,
        hashed: int,
        key: int | None,
        parent_tag: int,
        local_hash: int,
        parent: Hash | None,
        counts: AppliedCounts,
    ) -> Block | None:
        """The block of this hash, with what the event says of its content; None if it is one orphan too many."""
        block = self.blocks.get(hashed)
        if block is None:
            if key is None:
                return self._add_orphan(hashed, local_hash, parent, counts)
            block = self.blocks[hashed] = Block(key, parent_tag, None, None)
            self._attach_waiting(hashed, key, counts)
        elif block.prefix_key is not None:
            if key is not None and key != block.prefix_key:
                self.conflicts += 1
        elif key is not None:
            self.orphans.remove(hashed, block)
            self._attach(block, key, parent_tag, counts)
            self._attach_waiting(hashed, key, counts)
        elif block.local_hash is None and parent is not None:
            block.local_hash, block.parent = local_hash, parent
            self.orphans.wait(hashed, block)
        return block

    def _add_orphan(
        self, hashed: int, local_hash: int | None, parent: Hash | None, counts: AppliedCounts
    ) -> Block | None:
        if self.orphans.count >= self._limits.max_orphans:
            self.refused += 1
            counts["refused"] += 1
            return None
        block = self.blocks[hashed] = Block(None, 0, local_hash, parent)
        self.orphans.add(hashed, block)
        counts["orphans"] += 1
        return block

    def _attach(self, block: Block, key: int, parent_tag: int, counts: AppliedCounts) -> None:
        """Give a block that is no longer counted as an orphan its prefix key."""
        block.prefix_key, block.parent_tag, block.local_hash, block.parent = key, parent_tag, None, None
        counts["attached"] += 1
        for slot in block.copies:
            self.residency.show(key, slot)

    def _attach_waiting(self, hashed: int, key: int, counts: AppliedCounts) -> None:
        """Attach every block that waited for this hash, and every block that waited for one of those."""
        parents = [(hashed, key)]
        while parents:
            parent, parent_key = parents.pop()
            for child in self.orphans.take_children(parent):
                block = self.blocks[child]
                assert block.local_hash is not None
                key = mix(parent_key, block.local_hash)
                self._attach(block, key, key_tag(parent_key), counts)
                parents.append((child, key))

    def _add_copy(
        self, hashed: int, raw_hash: Hash, block: Block, slot: int, adds_copy: bool, counts: AppliedCounts
    ) -> bool:
        """Count the block in the slot; True if it was there already and gained a copy."""
        counts["stored"] += 1
        copies = block.copies.get(slot, 0)
        if copies:
            added = adds_copy and copies < MAX_COPIES
            block.copies[slot] = copies + added
            return added
        if not block.copies and isinstance(raw_hash, bytes):
            self.raw_hashes[hashed] = raw_hash
        self._put(hashed, block, slot, 1)
        return False

    def _put(self, hashed: int, block: Block, slot: int, copies: int) -> None:
        block.copies[slot] = copies
        self.rows += 1
        self.slots.digests[slot].add(hashed)
        if block.prefix_key is not None:
            self.residency.show(block.prefix_key, slot)

    # -- removed and cleared events ----------------------------------------------------------------------------------

    def _remove(self, event: BlockRemoved, counts: AppliedCounts) -> None:
        slot = self.slots.find(event.medium, event.group_idx)
        for raw_hash in event.block_hashes:
            hashed = engine_hash(raw_hash)
            block = self.blocks.get(hashed)
            if block is None or slot is None or slot not in block.copies:
                counts["unknown_removed"] += 1
                continue
            counts["removed"] += 1
            self._tentative.pop((hashed, slot), None)
            self._release(hashed, block, slot)

    def _take_back(self, hashed: int, slot: int) -> None:
        """Remove a copy that this batch added, because a later event shows that it was a report."""
        if (hashed, slot) in self._tentative:
            del self._tentative[hashed, slot]
            self._release(hashed, self.blocks[hashed], slot)

    def _release(self, hashed: int, block: Block, slot: int) -> None:
        if block.copies[slot] > 1:
            block.copies[slot] -= 1
        else:
            self._drop(hashed, block, slot)

    def _drop(self, hashed: int, block: Block, slot: int) -> None:
        del block.copies[slot]
        self.rows -= 1
        self.slots.digests[slot].discard(hashed)
        if block.prefix_key is not None:
            self.residency.hide(block.prefix_key, slot)
        if block.copies:
            return
        del self.blocks[hashed]
        self.raw_hashes.pop(hashed, None)
        if block.prefix_key is None:
            self.orphans.remove(hashed, block)

    def _clear(self, event: AllBlocksCleared) -> int:
        before = self.rows
        self._tentative.clear()
        if event.medium is None:
            self._drop_blocks()
            return before
        medium = medium_of(event.medium)
        for slot in [at for at, known in enumerate(self.slots.by_number) if known[0] == medium]:
            for hashed, block in [item for item in self.blocks.items() if slot in item[1].copies]:
                self._drop(hashed, block, slot)
        return before - self.rows

    # -- snapshots ---------------------------------------------------------------------------------------------------

    def restore_block(self, hashed: int, block: Block, raw_hash: bytes | None, held: Iterable[tuple[int, int]]) -> None:
        """Put back a block as a snapshot describes it; `held` gives its copies by slot."""
        self.blocks[hashed] = block
        if raw_hash is not None:
            self.raw_hashes[hashed] = raw_hash
        if block.prefix_key is None:
            self.orphans.add(hashed, block)
        for slot, copies in held:
            self._put(hashed, block, slot, copies)
