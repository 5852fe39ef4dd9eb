"""Blocks of the lower tiers, and the interface through which the tiers report what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

HOST, DISK = "CPU", "STORAGE"
"""The media of the two tiers, as events name them."""


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What a block's hash covers besides its tokens, in the form in which events carry it.

    Without it, an index would take the block of an adapter, of a cache salt or of a picture for one that the base model
    can use.
    """

    lora_id: int | None = None
    lora_name: str | None = None
    extra_keys: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """An evicted device block: its hash, which names the whole prefix, and what is needed to publish it later."""

    hash: bytes
    parent: bytes | None = None
    token_ids: tuple[int, ...] = ()
    context: BlockContext | None = None
    """None for a block whose hash covers nothing but tokens."""


@dataclass(slots=True, eq=False)
class StoredBlock:
    """A block in a lower tier: its identity, its content, its copies and the number of onboardings that read it."""

    hash: bytes
    parent: bytes | None
    token_ids: tuple[int, ...]
    context: BlockContext | None = None
    pins: int = 0
    copies: int = 1
    """Slots that hold this block; more than one only if duplicates are allowed."""


class TierSink(Protocol):
    """Receives every block that arrives in a lower tier or leaves it."""

    def tier_stored(self, medium: str, blocks: Sequence[StoredBlock]) -> None:
        """Blocks arrived; consecutive blocks of one chain come together, in chain order."""

    def tier_removed(self, medium: str, block: StoredBlock) -> None:
        """A block left the tier."""


def chains(blocks: Sequence[StoredBlock]) -> list[list[StoredBlock]]:
    """Group blocks given in eviction order (leaf first) into chains, first block first: one event carries one chain."""
    found: list[list[StoredBlock]] = []
    for block in reversed(blocks):
        if found and found[-1][-1].hash == block.parent:
            found[-1].append(block)
        else:
            found.append([block])
    return found
