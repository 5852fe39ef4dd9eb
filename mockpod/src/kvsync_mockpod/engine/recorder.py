"""Turns the changes of the block table into events for the publisher and entries of the transition log."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, Hash, RemovedRun, StoredRun
from kvsync_mockpod.engine.api import LoraRef, Published
from kvsync_mockpod.engine.log import TransitionLog
from kvsync_mockpod.engine.tiers import BlockContext, SourceBlock, StoredBlock

ExtraKeys = list[tuple[Any, ...] | None] | None


class Recorder:
    """The only place where block transitions become events. The engine takes the events once per step."""

    def __init__(
        self,
        block_size: int,
        log: TransitionLog,
        *,
        publish: bool = True,
        keep_tokens: bool = True,
        runs: bool = False,
    ) -> None:
        """With `runs`, what is published are runs instead of events: hashes alone, blocks evicted together in one."""
        self.log = log
        self.step = 0
        self.stored_blocks = 0
        self.removed_blocks = 0
        self._block_size = block_size
        self._publish = publish
        self._runs = runs
        self._keep = keep_tokens
        self.needs_steps = (publish and not runs) or keep_tokens or log.capacity > 0
        """Whether each block has to be recorded in the step that completes it."""
        self.counts_only = not (publish or keep_tokens or log.capacity)
        """Whether neither events nor tokens nor log entries are wanted, so that blocks only have to be counted."""
        self._published: list[Published] = []
        self.content: dict[bytes, tuple[bytes | None, Sequence[int], BlockContext | None]] = {}
        """Parent, tokens and context of each resident block, if tokens are kept."""
        self.evicted: list[SourceBlock] | None = None
        """While this is a list, blocks that lose their last device copy are added to it, to be offered to host memory.
        """
        self.hash_only = False
        """Publish lower-tier blocks with their hashes only, as vLLM's offload connector does."""
        self.last_copy_only = False
        """Announce the removal of a device block only when its last copy goes, as vllm-project/vllm#55092 proposes."""
        self.tier_events = 0
        """Lower-tier events that have not been taken yet."""

    def stored(
        self,
        hashes: list[bytes],
        parent: bytes | None,
        token_ids: Callable[[], list[int]],
        extra_keys: Callable[[], ExtraKeys],
        lora: LoraRef | None,
        session_id: str | None = None,
        *,
        resident: bool = False,
    ) -> None:
        """Record that consecutive blocks became resident; with `resident`, only announce them again."""
        if not resident:
            self.stored_blocks += len(hashes)
            self.log.append(self.step, "stored", hashes, parent)
        if self._publish and self._runs:
            self._published.append(StoredRun(hashes, "GPU", parent))
        if not (self._keep or (self._publish and not self._runs)):
            return
        tokens, keys = token_ids(), extra_keys()
        if self._keep and not resident:
            self._remember(hashes, parent, tokens, _contexts(lora, keys, len(hashes)))
        if self._publish and not self._runs:
            self._published.append(
                BlockStored(
                    block_hashes=list(hashes),
                    parent_block_hash=parent,
                    token_ids=tokens,
                    block_size=self._block_size,
                    lora_id=lora.id if lora else None,
                    medium="GPU",
                    lora_name=lora.name if lora else None,
                    extra_keys=keys,
                    group_idx=0,
                    kv_cache_spec_kind="full_attention",
                    session_id=session_id,
                )
            )

    def removed(self, hashes: list[Any], *, last: bool) -> None:
        """Record that one copy of each hash is gone, as one event per hash like vLLM; with `last` no copy is left."""
        self.removed_blocks += len(hashes)
        if self.counts_only:
            return
        if last and self._keep:
            for h in hashes:
                parent, tokens, context = self.content.pop(h, (None, (), None))
                if self.evicted is not None:
                    self.evicted.append(SourceBlock(h, parent, tuple(tokens), context))
        self.log.append(self.step, "removed", hashes)
        if not self._publish or (self.last_copy_only and not last):
            return
        if self._runs:
            self._published.append(RemovedRun(hashes, "GPU"))
        else:
            self._published += [BlockRemoved(block_hashes=[h], medium="GPU", group_idx=0) for h in hashes]

    def cleared(self) -> None:
        """Record that all blocks are gone."""
        self.content.clear()
        self.log.append(self.step, "cleared", (None,))
        if self._publish:
            self._published.append(AllBlocksCleared())

    def lose(self) -> None:
        """Record that all blocks are gone and drop every event that was not taken: the publisher is gone as well."""
        self.content.clear()
        self.log.append(self.step, "cleared", (None,))
        self.take()

    def _remember(
        self, hashes: list[bytes], parent: bytes | None, tokens: list[int], contexts: Sequence[BlockContext | None]
    ) -> None:
        size, data = self._block_size, array("I", tokens)
        for i, h in enumerate(hashes):
            self.content[h] = (parent, data[i * size : (i + 1) * size], contexts[i])
            parent = h

    def tier_stored(self, medium: str, blocks: Sequence[StoredBlock]) -> None:
        """Record that a chain of blocks arrived in a lower tier."""
        hashes: list[Hash] = [b.hash for b in blocks]
        self.log.append(self.step, "stored", [b.hash for b in blocks], blocks[0].parent, medium)
        if not self._publish:
            return
        self.tier_events += 1
        if self._runs:
            self._published.append(StoredRun([b.hash for b in blocks], medium, blocks[0].parent))
            return
        if self.hash_only:
            self._published.append(BlockStored(hashes, None, [], 0, medium=medium))
            return
        first = blocks[0].context or BlockContext()
        self._published.append(
            BlockStored(
                block_hashes=hashes,
                parent_block_hash=blocks[0].parent,
                token_ids=[t for b in blocks for t in b.token_ids],
                block_size=self._block_size,
                lora_id=first.lora_id,
                medium=medium,
                lora_name=first.lora_name,
                extra_keys=_event_keys(blocks),
                group_idx=0,
            )
        )

    def tier_removed(self, medium: str, block: StoredBlock) -> None:
        """Record that a block left a lower tier."""
        self.log.append(self.step, "removed", (block.hash,), None, medium)
        if self._publish:
            self.tier_events += 1
            if self._runs:
                self._published.append(RemovedRun([block.hash], medium))
                return
            group = None if self.hash_only else 0
            self._published.append(BlockRemoved([block.hash], medium=medium, group_idx=group))

    def take(self) -> list[Any]:
        """Return what was published since the last call: events, or runs."""
        published, self._published = self._published, []
        self.tier_events = 0
        return published


def _contexts(lora: LoraRef | None, keys: ExtraKeys, count: int) -> list[BlockContext | None]:
    """One context per block; None for blocks whose hash covers nothing but tokens."""
    keys = keys or [None] * count
    if lora is None:
        return [None if key is None else BlockContext(extra_keys=key) for key in keys]
    return [BlockContext(lora.id, lora.name, key) for key in keys]


def _event_keys(blocks: Sequence[StoredBlock]) -> ExtraKeys:
    """The `extra_keys` of a chain's event; None if no block has any."""
    keys = [None if block.context is None else block.context.extra_keys for block in blocks]
    return keys if any(key is not None for key in keys) else None
