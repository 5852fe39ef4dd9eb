"""Blocks of the lower tiers, and the interface through which the tiers report what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

HOST, DISK = "CPU", "STORAGE"
"""The media of the two tiers, as events name them."""


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """An evicted device block: its hash, which names the whole prefix, and what is needed to publish it later."""

    hash: bytes
    parent: bytes | None = None
    token_ids: tuple[int, ...] = ()


@dataclass(slots=True, eq=False)
class StoredBlock:
    """A block in a lower tier: its identity, its content and the number of onboardings that read it."""

    hash: bytes
    parent: bytes | None
    token_ids: tuple[int, ...]
    pins: int = 0


class TierSink(Protocol):
    """Receives every block that arrives in a lower tier or leaves it."""

    def tier_stored(self, medium: str, blocks: Sequence[StoredBlock]) -> None:
        """Blocks arrived; consecutive blocks of one chain come together, in chain order."""

    def tier_removed(self, medium: str, block: StoredBlock) -> None:
        """A block left the tier."""
