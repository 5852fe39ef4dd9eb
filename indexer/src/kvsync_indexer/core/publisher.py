"""One publisher's blocks in pure Python: what is resident, what its content is, and what is not known yet.

A block is identified by the engine's hash, of which only `engine_hash` counts, and by its block size (`block_id`). Two
things are kept apart:

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
- An event without tokens gains nothing, because it may be an announcement that is repeated.

Outside of the device, chunks of several blocks may share blocks, and each is announced and removed with all of its
blocks. There every event with tokens adds copies, and so does an event without tokens that names a hash which is new in
the slot.

An engine may announce the removal of a device block only when its last copy goes (`last_copy_only`, as proposed in
vllm-project/vllm#55092). Then copies on the device are not counted, and a removal takes all that were counted before.

A slot holds a hash in one block size. A block of the group's own block size takes the place of one of another size, and
not the other way round.
"""

from collections.abc import Sequence
from typing import Final

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockRun, BlockStored, EventBatch, Hash
from kvsync_indexer.core.admission import check_batch
from kvsync_indexer.core.blocks import Block, block_id, engine_hash, key_tag, unsigned
from kvsync_indexer.core.chain import has_chain, read_chain, run_events
from kvsync_indexer.core.groups import medium_of
from kvsync_indexer.core.holdings import AppliedCounts, Holdings, Slices
from kvsync_indexer.core.keys import identity_key, mix
from kvsync_indexer.core.protocol import MAX_SPARSE_BLOCKS, CoreLimits
from kvsync_indexer.core.sparse import is_sparse, place_hashes

DEVICE: Final = "GPU"


class Publisher(Holdings):
    """The state of one publisher. It is not thread-safe, and `apply` takes only batches that `check` admitted."""

    def __init__(self, name: str, model: str, seed: int, limits: CoreLimits) -> None:
        super().__init__(limits)
        self.name = name
        self.model = model
        self._seed = seed
        self.last_copy_only = False
        """Removals from the device are announced only for the last copy."""
        self.conflicts = 0
        self.cleared_rows = 0
        """Rows that clears have visited."""
        self._tentative: dict[tuple[int, int], None] = {}
        """Id and slot of copies that the batch being applied added, and that may still turn out to be reports."""
        self._sparse: list[BlockStored] = []
        """Events of the batch being applied whose hashes may have to be placed among their tokens."""

    def check(self, batch: EventBatch) -> None:
        """Raise LimitError if applying the batch could exceed a hard limit."""
        check_batch(batch, self.name, self.slots, self.rows, self._limits.max_blocks)

    def apply(self, batch: EventBatch, counts: AppliedCounts) -> Slices:
        """Apply an admitted batch, and count what it did. Nothing else may change the publisher before the end."""
        counts.update(unknown_events=batch.unknown_events, payloads=1)
        self._tentative.clear()
        self._sparse.clear()
        for event in batch.events:
            counts["events"] += 1
            if isinstance(event, BlockStored):
                yield from self._store(event, counts)
            elif isinstance(event, BlockRemoved):
                yield from self._remove(event, counts)
            else:
                yield from self._clear(event, counts)
        if len(self.slots.sizes) > 1:
            yield from self._place_sparse(counts)

    def apply_runs(self, block_size: int, runs: Sequence[BlockRun], counts: AppliedCounts) -> Slices:
        """As `apply`, for runs: stored and removed events without tokens."""
        counts.update(payloads=1)
        self._tentative.clear()
        for event in run_events(block_size, runs):
            counts["events"] += 1
            if isinstance(event, BlockStored):
                yield from self._store_run(event, counts)
            else:
                yield from self._remove(event, counts)

    # -- stored events -----------------------------------------------------------------------------------------------

    def _store(self, event: BlockStored, counts: AppliedCounts) -> Slices:
        slot = self.slots.learn(event)
        parent = event.parent_block_hash
        if parent is not None and self._tentative:
            self._take_back(engine_hash(parent), slot)
        with_tokens = event.block_size > 0 and bool(event.token_ids)
        number = self.slots.learn_size(event.group_idx, event.block_size) if with_tokens else None
        if number is not None and has_chain(event):
            yield from self._store_chain(event, slot, number, counts)
            return
        if number is not None and is_sparse(event):
            self._sparse.append(event)
        number = self.slots.size_of(event.group_idx) if number is None else number
        yield from self._store_hashes(event, slot, number, counts)

    def _store_hashes(self, event: BlockStored, slot: int, number: int, counts: AppliedCounts) -> Slices:
        """Store an event that does not say for certain what its hashes are."""
        with_tokens = event.block_size > 0 and bool(event.token_ids)
        if self.slots.by_number[slot][0] == DEVICE:
            adds_copy = with_tokens and event.parent_block_hash is not None and not self.last_copy_only
        else:
            members = self.slots.members[slot]
            adds_copy = with_tokens or any(
                self._held_id(engine_hash(raw_hash), slot, number) not in members for raw_hash in event.block_hashes
            )
        for raw_hash in event.block_hashes:
            ident = self._held_id(engine_hash(raw_hash), slot, number)
            block = self.blocks.get(ident) or self._recall(ident, number)
            if block is None:
                block = self._add_orphan(ident, number, None, None, counts)
            if block is not None:
                self._add_copy(ident, raw_hash, block, slot, adds_copy, counts)
            if self._attaching:
                yield from self._attach_more(counts)
            if self._is_spent():
                yield

    def _held_id(self, hashed: int, slot: int, number: int) -> int:
        """The id under which the slot holds the hash in any block size, or else its id in this one."""
        ident = block_id(hashed, number)
        members = self.slots.members[slot]
        if len(self.slots.sizes) > 1 and ident not in members:
            for other in range(len(self.slots.sizes)):
                if block_id(hashed, other) in members:
                    return block_id(hashed, other)
        return ident

    def _recall(self, ident: int, number: int) -> Block | None:
        """A block that is not resident, with the content that it had when it was removed."""
        content = self._remembered.get(ident)
        if content is None:
            return None
        block = self.blocks[ident] = Block(number, *content, None, None)
        self._attach_waiting(ident, content[0])
        return block

    def _store_chain(self, event: BlockStored, slot: int, number: int, counts: AppliedCounts) -> Slices:
        """Store an event whose tokens say what each of its hashes is."""
        chain = read_chain(event, self.model, self._seed)
        parent = None if event.parent_block_hash is None else unsigned(event.parent_block_hash)
        if parent is None:
            parent_key, parent_tag = chain.root, 0
        else:
            parent_key = self._key_of(block_id(engine_hash(parent), number))
            parent_tag = key_tag(parent_key)
        adds_copy, one_block_root = self._copy_rule(event, slot)
        for raw_hash, local_hash in zip(event.block_hashes, chain.local_hashes, strict=True):
            key = None if parent_key is None else mix(parent_key, local_hash)
            ident = block_id(engine_hash(raw_hash), number)
            if self._gives_way(engine_hash(raw_hash), slot, number):
                counts["stored"] += 1
                parent_key, parent_tag, parent = key, key_tag(key), unsigned(raw_hash)
                continue
            block = self._learn_content(ident, number, key, parent_tag, local_hash, parent, counts)
            if block is not None:
                added = self._add_copy(ident, raw_hash, block, slot, adds_copy, counts)
                if added and one_block_root:
                    self._tentative[ident, slot] = None
                if key is None:
                    key = block.prefix_key
            parent_key, parent_tag, parent = key, key_tag(key), unsigned(raw_hash)
            if self._attaching:
                yield from self._attach_more(counts)
            if self._is_spent():
                yield

    def _store_run(self, event: BlockStored, counts: AppliedCounts) -> Slices:
        """Store blocks whose hashes identify their content."""
        slot = self.slots.learn(event)
        number = self.slots.learn_size(event.group_idx, event.block_size)
        if number is None:
            return
        adds_copy, one_block_root = self._copy_rule(event, slot)
        parent = event.parent_block_hash
        parent_tag = 0 if parent is None else key_tag(identity_key(engine_hash(parent)))
        for raw_hash in event.block_hashes:
            hashed = engine_hash(raw_hash)
            key, ident = identity_key(hashed), block_id(hashed, number)
            block = self._learn_content(ident, number, key, parent_tag, 0, None, counts)
            if block is not None and self._add_copy(ident, raw_hash, block, slot, adds_copy, counts) and one_block_root:
                self._tentative[ident, slot] = None
            parent_tag = key_tag(key)
            if self._attaching:
                yield from self._attach_more(counts)
            if self._is_spent():
                yield

    def _copy_rule(self, event: BlockStored, slot: int) -> tuple[bool, bool]:
        """Whether blocks of this chain that are resident gain a copy, and whether that is only tentative."""
        on_device = self.slots.by_number[slot][0] == DEVICE
        one_block_root = on_device and event.parent_block_hash is None and len(event.block_hashes) == 1
        gains = event.parent_block_hash is not None or one_block_root
        return not on_device or (gains and not self.last_copy_only), one_block_root

    def _gives_way(self, hashed: int, slot: int, number: int) -> bool:
        """Whether the slot holds the hash in the group's own block size and not in this one.

        If this block size is the group's own, a block of another size with this hash is dropped.
        """
        ident = block_id(hashed, number)
        held = self._held_id(hashed, slot, number)
        if held == ident or held not in self.slots.members[slot]:
            return False
        if number != self.slots.size_of(self.slots.by_number[slot][1]):
            return True
        self._tentative.pop((held, slot), None)
        self._drop(held, self.blocks[held], slot)
        return False

    def _key_of(self, ident: int) -> int | None:
        """The prefix key of a resident block, if it is known."""
        block = self.blocks.get(ident)
        return None if block is None else block.prefix_key

    def _place_sparse(self, counts: AppliedCounts) -> Slices:
        blocks = 0
        for event in self._sparse:
            more = sum(len(event.token_ids) // size for size in self.slots.sizes)
            blocks += more
            if blocks > MAX_SPARSE_BLOCKS:
                return
            self._place(event, counts)
            yield from self._attach_more(counts)
            if self._is_spent(more):
                yield

    def _place(self, event: BlockStored, counts: AppliedCounts) -> None:
        """Attach the orphans among the hashes of a sparse event, as far as its tokens say what they are."""
        number = self.slots.sizes.index(event.block_size)
        idents = [block_id(engine_hash(raw_hash), number) for raw_hash in event.block_hashes]
        waiting = [self.blocks.get(ident) for ident in idents]
        if all(block is None or block.prefix_key is not None for block in waiting):
            return
        for at, key, parent_key in place_hashes(event, self.slots.sizes, self.model, self._seed, self._key_of):
            block = self.blocks.get(idents[at])
            if block is not None and block.prefix_key is None:
                self.orphans.remove(idents[at], block)
                self._attach(block, key, key_tag(parent_key), counts)
                self._attach_waiting(idents[at], key)

    def _learn_content(
        self,
        ident: int,
        number: int,
        key: int | None,
        parent_tag: int,
        local_hash: int,
        parent: Hash | None,
        counts: AppliedCounts,
    ) -> Block | None:
        """The block of this id, with what the event says of its content; None if it is one orphan too many."""
        block = self.blocks.get(ident)
        if block is None:
            if key is None:
                return self._add_orphan(ident, number, local_hash, parent, counts)
            block = self.blocks[ident] = Block(number, key, parent_tag, None, None)
            if self.orphans.count:
                self._attach_waiting(ident, key)
        elif block.prefix_key is not None:
            if key is not None and key != block.prefix_key:
                self.conflicts += 1
        elif key is not None:
            self.orphans.remove(ident, block)
            self._attach(block, key, parent_tag, counts)
            self._attach_waiting(ident, key)
        elif block.local_hash is None and parent is not None:
            block.local_hash, block.parent = local_hash, parent
            self.orphans.wait(ident, block)
        return block

    def _add_orphan(
        self, ident: int, number: int, local_hash: int | None, parent: Hash | None, counts: AppliedCounts
    ) -> Block | None:
        if self.orphans.count >= self._limits.max_orphans:
            self.refused += 1
            counts["refused"] += 1
            return None
        block = self.blocks[ident] = Block(number, None, 0, local_hash, parent)
        self.orphans.add(ident, block)
        counts["orphans"] += 1
        return block

    # -- removed and cleared events ----------------------------------------------------------------------------------

    def _remove(self, event: BlockRemoved, counts: AppliedCounts) -> Slices:
        slot = self.slots.find(event.medium, event.group_idx)
        if slot is None:
            counts["unknown_removed"] += len(event.block_hashes)
            return
        takes_all = self.last_copy_only and self.slots.by_number[slot][0] == DEVICE
        members, numbers = self.slots.members[slot], list(self.slots.sizes_of(slot))
        for raw_hash in event.block_hashes:
            if self._is_spent():
                yield
            hashed = engine_hash(raw_hash)
            ident = next((one for number in numbers if (one := block_id(hashed, number)) in members), None)
            if ident is None:
                counts["unknown_removed"] += 1
                continue
            counts["removed"] += 1
            self._tentative.pop((ident, slot), None)
            if takes_all:
                self._drop(ident, self.blocks[ident], slot)
            else:
                self._release(ident, self.blocks[ident], slot)

    def _take_back(self, hashed: int, slot: int) -> None:
        """Remove a copy that this batch added, because a later event shows that it was a report."""
        for number in self.slots.sizes_of(slot):
            ident = block_id(hashed, number)
            if (ident, slot) in self._tentative:
                del self._tentative[ident, slot]
                self._release(ident, self.blocks[ident], slot)
                return

    def _clear(self, event: AllBlocksCleared, counts: AppliedCounts) -> Slices:
        before = self.rows
        self._tentative.clear()
        if event.medium is None:
            self._sparse.clear()
            freed = self._drop_blocks()
            counts["cleared"] += before
            self.cleared_rows += before
            yield from freed
            return
        medium = medium_of(event.medium)
        for slot in [at for at, known in enumerate(self.slots.by_number) if known[0] == medium]:
            for ident in list(self.slots.members[slot]):
                self._take_out(ident, self.blocks[ident], slot)
                if self._is_spent():
                    yield
        counts["cleared"] += before - self.rows
        self.cleared_rows += before - self.rows
