"""One publisher's blocks in pure Python: what is resident, what its content is, and what still waits to be known.

Identity is the engine's hash, of which the low 64 bits count (as in `SetDigest`). Two things are kept apart:

- *residency*: copies by slot (`slots`); counted from events whether or not the content is
  known;
- *content*: the block's own key (`keys`), known as soon as its chain back to a root is. Until then the block is an
  orphan: it has its text and the parent's hash, or neither (announced without tokens), and is never matched.

Content is looked up by key only, so a block that was removed and comes back finds its descendants again, and a block
whose ancestor is gone is not reached. The first content of a hash is kept while the hash is resident.

Copies. Storing a resident block again adds a copy, as vLLM does when it recomputes the last block of a fully cached
prompt, with these exceptions, all on the side of claiming less:
- an event without parent that names several blocks is what a `kv_cache_report_mode: full` report looks like: blocks
  already resident gain nothing;
- one that names one block is what a recomputed one-block prompt looks like: it gains a copy, which is taken back if a
  later event of the same batch continues from that block (a report followed by the rest of the prompt);
- an event without tokens (offload tiers hold a hash once) gains nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, EventBatch, Hash
from kvsync_indexer.core.errors import LimitError
from kvsync_indexer.core.groups import medium_of
from kvsync_indexer.core.keys import MASK_64, mix, root_key, split_extra, text_of, words
from kvsync_indexer.core.protocol import MAX_COPIES, MAX_MEDIUM_CHARS, MAX_SLOTS, Applied, CoreLimits
from kvsync_indexer.core.residency import Residency
from kvsync_indexer.core.slots import Pair, Slots

TAG: Final = 0xFFFFFFFF


def hash_key(block_hash: Hash) -> int:
    """The 64 bits of an engine hash that count."""
    return block_hash & MASK_64 if isinstance(block_hash, int) else int.from_bytes(block_hash[-8:], "big")


def _plain(block_hash: Hash) -> Hash:
    """Bytes as they are, integers unsigned."""
    return block_hash & MASK_64 if isinstance(block_hash, int) else block_hash


class Block:
    """One engine hash that is resident somewhere."""

    __slots__ = ("copies", "key", "parent", "parent_tag", "text")

    def __init__(self, key: int | None, parent_tag: int, text: int | None, parent: Hash | None) -> None:
        self.key = key
        """Own key; None while an orphan."""
        self.parent_tag = parent_tag
        """Low 32 bits of the parent's own key, 0 for a root; attached blocks only."""
        self.text = text
        """Orphans only; None if the tokens are not known either."""
        self.parent = parent
        """Orphans only: what they wait for."""
        self.copies: dict[int, int] = {}
        """By slot."""


@dataclass(slots=True)
class Tally:
    """Applied, while it is counted."""

    events: int = 0
    stored: int = 0
    removed: int = 0
    cleared: int = 0
    orphans: int = 0
    attached: int = 0
    unknown_removed: int = 0
    unknown_events: int = 0
    refused: int = 0

    def done(self) -> Applied:
        """The result."""
        return Applied(
            self.events,
            self.stored,
            self.removed,
            self.cleared,
            self.orphans,
            self.attached,
            self.unknown_removed,
            self.unknown_events,
            self.refused,
        )


class Publisher:
    """State of one publisher. Not thread-safe; apply only what `check` let pass."""

    def __init__(self, name: str, model: str, seed: int, limits: CoreLimits) -> None:
        self.name = name
        self.model = model
        self._seed = seed
        self._limits = limits
        self.conflicts = 0
        self.refused = 0
        self.forget()

    def forget(self) -> int:
        """Drop everything, slots and groups too; returns the blocks dropped."""
        dropped = getattr(self, "rows", 0)
        self.slots = Slots()
        self._empty()
        return dropped

    def _empty(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.resident = Residency()
        self.waiting: dict[int, dict[int, None]] = {}
        """Parent's hash -> orphans with a text."""
        self.spelled: dict[int, bytes] = {}
        """Hashes that came as bytes."""
        self.orphans = 0
        self.rows = 0
        self._tentative: dict[tuple[int, int], None] = {}
        for digest in self.slots.digests:
            digest.clear()

    # -- limits ------------------------------------------------------------------------------------------------------

    def check(self, batch: EventBatch) -> None:
        """Raise LimitError if applying the batch could pass a hard limit."""
        stored = 0
        new_slots: set[Pair] = set()
        for event in batch.events:
            if not isinstance(event, BlockStored):
                continue
            stored += len(event.block_hashes)
            if self.slots.find(event.medium, event.group_idx) is None:
                medium = medium_of(event.medium)
                if len(medium) > MAX_MEDIUM_CHARS:
                    raise LimitError(f"medium of {len(medium)} characters, over the limit of {MAX_MEDIUM_CHARS}")
                new_slots.add((medium, event.group_idx))
        if self.rows + stored > self._limits.max_blocks:
            raise LimitError(
                f"{self.name} holds {self.rows} blocks and stores {stored} more, over the limit of "
                f"{self._limits.max_blocks}"
            )
        if len(self.slots) + len(new_slots) > MAX_SLOTS:
            raise LimitError(
                f"{self.name} uses {len(self.slots)} pairs of medium and group and names {len(new_slots)} more, over "
                f"the limit of {MAX_SLOTS}"
            )

    # -- events ------------------------------------------------------------------------------------------------------

    def apply(self, batch: EventBatch) -> Applied:
        """Apply a checked batch."""
        tally = Tally(unknown_events=batch.unknown_events)
        self._tentative.clear()
        for event in batch.events:
            tally.events += 1
            if isinstance(event, BlockStored):
                self._store(event, tally)
            elif isinstance(event, BlockRemoved):
                self._remove(event, tally)
            else:
                tally.cleared += self._clear(event)
        return tally.done()

    def _store(self, event: BlockStored, tally: Tally) -> None:
        slot = self.slots.of(event)
        parent = event.parent_block_hash
        if parent is not None and self._tentative:
            self._take_back(hash_key(parent), slot)
        hashes, size, tokens = event.block_hashes, event.block_size, event.token_ids
        readable = size > 0 and bool(tokens) and self.slots.learn_size(event.group_idx, size)
        if (
            readable
            and hashes
            and len(tokens) // size == len(hashes)
            and (event.extra_keys is None or len(event.extra_keys) == len(hashes))
        ):
            self._store_chain(event, slot, tally)
            return
        gains = parent is not None and size > 0 and bool(tokens)
        for block_hash in hashes:
            hashed = hash_key(block_hash)
            block = self.blocks.get(hashed)
            if block is None:
                block = self._new_orphan(hashed, None, None, tally)
                if block is None:
                    continue
            self._hold(hashed, block_hash, block, slot, gains, tally)

    def _store_chain(self, event: BlockStored, slot: int, tally: Tally) -> None:
        """An event whose tokens say what each of its hashes is."""
        hashes, size = event.block_hashes, event.block_size
        parent = None if event.parent_block_hash is None else _plain(event.parent_block_hash)
        lora = event.lora_name if event.lora_name is not None else None if event.lora_id is None else str(event.lora_id)
        width = 4 * size
        view = memoryview(words(event.token_ids))
        salt, first_extra = split_extra(event.extra_keys[0] if event.extra_keys else None, lora, first=parent is None)
        key: int | None
        if parent is None:
            key, tag = root_key(self.model, lora, salt, size, self._seed), 0
        else:
            above = self.blocks.get(hash_key(parent))
            key = above.key if above is not None else None
            tag = 0 if key is None else key & TAG
        single = parent is None and len(hashes) == 1
        gains = parent is not None or single
        for at, block_hash in enumerate(hashes):
            extra = first_extra
            if at:
                extra = split_extra(event.extra_keys[at], lora, first=False)[1] if event.extra_keys else ()
            text = text_of(view[at * width : (at + 1) * width], extra, self._seed)
            own = None if key is None else mix(key, text)
            hashed = hash_key(block_hash)
            block = self._know(hashed, own, tag, text, parent, tally)
            if block is not None:
                again = self._hold(hashed, block_hash, block, slot, gains, tally)
                if again and single:
                    self._tentative[hashed, slot] = None
                if own is None:
                    own = block.key
            key, tag, parent = own, 0 if own is None else own & TAG, _plain(block_hash)

    def _know(
        self, hashed: int, own: int | None, tag: int, text: int, parent: Hash | None, tally: Tally
    ) -> Block | None:
        """The block of this hash, with what the event says of its content; None if it is one orphan too many."""
        block = self.blocks.get(hashed)
        if block is None:
            if own is None:
                return self._new_orphan(hashed, text, parent, tally)
            block = self.blocks[hashed] = Block(own, tag, None, None)
            self._adopt(hashed, own, tally)
        elif block.key is not None:
            if own is not None and own != block.key:
                self.conflicts += 1
        elif own is not None:
            self._unwait(hashed, block)
            self._attach(block, own, tag, tally)
            self._adopt(hashed, own, tally)
        elif block.text is None and parent is not None:
            block.text, block.parent = text, parent
            self.waiting.setdefault(hash_key(parent), {})[hashed] = None
        return block

    def _new_orphan(self, hashed: int, text: int | None, parent: Hash | None, tally: Tally) -> Block | None:
        if self.orphans >= self._limits.max_orphans:
            self.refused += 1
            tally.refused += 1
            return None
        block = self.blocks[hashed] = Block(None, 0, text, parent)
        if parent is not None:
            self.waiting.setdefault(hash_key(parent), {})[hashed] = None
        self.orphans += 1
        tally.orphans += 1
        return block

    def _unwait(self, hashed: int, block: Block) -> None:
        if block.parent is None:
            return
        above = hash_key(block.parent)
        siblings = self.waiting[above]
        del siblings[hashed]
        if not siblings:
            del self.waiting[above]

    def _attach(self, block: Block, own: int, tag: int, tally: Tally) -> None:
        block.key, block.parent_tag, block.text, block.parent = own, tag, None, None
        self.orphans -= 1
        tally.attached += 1
        for slot in block.copies:
            self.resident.show(own, slot)

    def _adopt(self, hashed: int, own: int, tally: Tally) -> None:
        """Attach everything that waited for this hash, and what waited for that."""
        todo = [(hashed, own)]
        while todo:
            above, key = todo.pop()
            for hashed in self.waiting.pop(above, ()):
                block = self.blocks[hashed]
                assert block.text is not None
                own = mix(key, block.text)
                self._attach(block, own, key & TAG, tally)
                todo.append((hashed, own))

    def _hold(self, hashed: int, spelled: Hash, block: Block, slot: int, gains: bool, tally: Tally) -> bool:
        """Count the block in the slot; True if a copy was added to one that was there."""
        tally.stored += 1
        copies = block.copies.get(slot, 0)
        if copies:
            if gains and copies < MAX_COPIES:
                block.copies[slot] = copies + 1
                return True
            return False
        if not block.copies and isinstance(spelled, bytes):
            self.spelled[hashed] = spelled
        block.copies[slot] = 1
        self.rows += 1
        self.slots.digests[slot].add(hashed)
        if block.key is not None:
            self.resident.show(block.key, slot)
        return False

    def _remove(self, event: BlockRemoved, tally: Tally) -> None:
        slot = self.slots.find(event.medium, event.group_idx)
        for block_hash in event.block_hashes:
            hashed = hash_key(block_hash)
            block = self.blocks.get(hashed)
            copies = 0 if block is None or slot is None else block.copies.get(slot, 0)
            if block is None or slot is None or not copies:
                tally.unknown_removed += 1
                continue
            tally.removed += 1
            self._tentative.pop((hashed, slot), None)
            self._release(hashed, block, slot, copies)

    def _take_back(self, hashed: int, slot: int) -> None:
        """A copy gained in this batch was a report after all."""
        if (hashed, slot) in self._tentative:
            del self._tentative[hashed, slot]
            block = self.blocks[hashed]
            self._release(hashed, block, slot, block.copies[slot])

    def _release(self, hashed: int, block: Block, slot: int, copies: int) -> None:
        if copies > 1:
            block.copies[slot] = copies - 1
        else:
            self._drop(hashed, block, slot)

    def _drop(self, hashed: int, block: Block, slot: int) -> None:
        del block.copies[slot]
        self.rows -= 1
        self.slots.digests[slot].discard(hashed)
        if block.key is not None:
            self.resident.hide(block.key, slot)
        if block.copies:
            return
        del self.blocks[hashed]
        self.spelled.pop(hashed, None)
        if block.key is None:
            self.orphans -= 1
            self._unwait(hashed, block)

    def _clear(self, event: AllBlocksCleared) -> int:
        before = self.rows
        self._tentative.clear()
        if event.medium is None:
            self._empty()
            return before
        medium = medium_of(event.medium)
        for slot in [at for at, pair in enumerate(self.slots.pairs) if pair[0] == medium]:
            for hashed, block in [item for item in self.blocks.items() if slot in item[1].copies]:
                self._drop(hashed, block, slot)
        return before - self.rows

    def restore_block(self, hashed: int, block: Block, spelled: bytes | None, held: Iterable[tuple[int, int]]) -> None:
        """Put back a block as a snapshot describes it; it is not there yet."""
        self.blocks[hashed] = block
        if spelled is not None:
            self.spelled[hashed] = spelled
        if block.key is None:
            self.orphans += 1
            if block.parent is not None:
                self.waiting.setdefault(hash_key(block.parent), {})[hashed] = None
        for slot, copies in held:
            block.copies[slot] = copies
            self.rows += 1
            self.slots.digests[slot].add(hashed)
            if block.key is not None:
                self.resident.show(block.key, slot)
