"""Which blocks a manager announces: all of them, or a sample that grows only with the logarithm of the prefix."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from kvsync_events import BlockRemoved, BlockStored, Event, Hash


class EventPolicy(Protocol):
    """Decides by a block's position in its chain, counted from 0, so that its removal follows the same decision."""

    def announces(self, position: int) -> bool:
        """Whether changes of blocks at this position are announced."""
        ...


class AllEvents:
    """Announces every block."""

    def announces(self, position: int) -> bool:  # noqa: ARG002 - the policy does not depend on it
        """Always."""
        return True


class PowersOfTwo:
    """Announces the positions 1, 2, 4, 8, … only."""

    def announces(self, position: int) -> bool:
        """Whether the position is a power of two."""
        return position > 0 and position & (position - 1) == 0


def select_events(event: Event, policy: EventPolicy, position_of: Callable[[Hash], int]) -> list[Event]:
    """What is left of an event under a policy: the event itself if all of its blocks are announced.

    A stored event of which only some blocks are announced becomes one event per such block. Each keeps its true parent,
    which may be a block that is never announced.
    """
    if not isinstance(event, BlockStored | BlockRemoved):
        return [event]
    kept = [i for i, one in enumerate(event.block_hashes) if policy.announces(position_of(one))]
    if len(kept) == len(event.block_hashes):
        return [event]
    if isinstance(event, BlockRemoved):
        return [replace(event, block_hashes=[event.block_hashes[i] for i in kept])] if kept else []
    return [_single(event, i) for i in kept]


def _single(event: BlockStored, index: int) -> BlockStored:
    size = event.block_size
    return replace(
        event,
        block_hashes=[event.block_hashes[index]],
        parent_block_hash=event.block_hashes[index - 1] if index else event.parent_block_hash,
        token_ids=event.token_ids[index * size : (index + 1) * size],
        extra_keys=event.extra_keys[index : index + 1] if event.extra_keys else event.extra_keys,
    )
