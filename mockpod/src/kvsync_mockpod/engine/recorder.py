"""Collects what a step did to the block table: events for the publisher, entries for the transition log."""

from array import array
from collections.abc import Callable
from typing import Any

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored

from .api import Event, LoraRef
from .log import TransitionLog

__all__ = ["Recorder"]


class Recorder:
    """The one place where block transitions become events; they are taken once a step."""

    def __init__(self, block_size: int, log: TransitionLog, *, publish: bool = True, keep_tokens: bool = True) -> None:
        self.log = log
        self.step = 0
        self.stored_blocks = 0
        self.removed_blocks = 0
        self._block_size = block_size
        self._publish = publish
        self._keep = keep_tokens
        self._events: list[Event] = []
        self.content: dict[bytes, tuple[bytes | None, array[int]]] = {}
        """Parent and tokens of resident blocks, if they are kept."""

    def stored(
        self,
        hashes: list[bytes],
        parent: bytes | None,
        token_ids: Callable[[], list[int]],
        extra_keys: Callable[[], list[tuple[Any, ...] | None] | None],
        lora: LoraRef | None,
        session_id: str | None = None,
        *,
        resident: bool = False,
    ) -> None:
        """A run of blocks became resident (or, with `resident`, is reported again)."""
        if not resident:
            self.stored_blocks += len(hashes)
            self.log.append(self.step, "stored", hashes, parent)
        tokens = token_ids() if self._keep or self._publish else []
        if self._keep and not resident:
            self._remember(hashes, parent, tokens)
        if self._publish:
            self._events.append(
                BlockStored(
                    block_hashes=list(hashes),
                    parent_block_hash=parent,
                    token_ids=tokens,
                    block_size=self._block_size,
                    lora_id=lora.id if lora else None,
                    medium="GPU",
                    lora_name=lora.name if lora else None,
                    extra_keys=extra_keys(),
                    group_idx=0,
                    kv_cache_spec_kind="full_attention",
                    session_id=session_id,
                )
            )

    def removed(self, hashes: list[Any], *, last: bool) -> None:
        """One copy of each is gone: one event a hash, as vLLM's. `last`: no other copies are left."""
        self.removed_blocks += len(hashes)
        if last and self._keep:
            for h in hashes:
                self.content.pop(h, None)
        self.log.append(self.step, "removed", hashes)
        if self._publish:
            self._events += [BlockRemoved(block_hashes=[h], medium="GPU", group_idx=0) for h in hashes]

    def cleared(self) -> None:
        """Everything is gone."""
        self.content.clear()
        self.log.append(self.step, "cleared", (None,))
        if self._publish:
            self._events.append(AllBlocksCleared())

    def _remember(self, hashes: list[bytes], parent: bytes | None, tokens: list[int]) -> None:
        size, data = self._block_size, array("I", tokens)
        for i, h in enumerate(hashes):
            self.content[h] = (parent, data[i * size : (i + 1) * size])
            parent = h

    @property
    def pending(self) -> int:
        """Events not taken yet."""
        return len(self._events)

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events
