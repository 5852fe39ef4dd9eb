"""Filling managers with known blocks: one manager, or one long sequence spread over several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.managers.manager import TierManager
from kvsync_testkit.token_blocks import DEFAULT_BLOCK_SIZE, TokenBlock, TokenSequence, create_token_sequence


def populate_manager_with_blocks(
    manager: TierManager, blocks: Sequence[TokenBlock] | int, *, start: int = 0
) -> list[bytes]:
    """Register blocks and let go of them, so that they are resident, findable and evictable.

    Args:
        manager: Takes the blocks.
        blocks: The blocks, or a number of them: then a chain over the consecutive tokens from `start` on.
        start: First token of a chain that is made here.

    Returns:
        The digest of each block, in the order given.

    Raises:
        CapacityError: the manager has no room for all of them; none was registered.
    """
    if isinstance(blocks, int):
        blocks = create_token_sequence(blocks, manager.block_size, start)
    with manager.register(blocks) as held:
        return list(held.hashes)


@dataclass(frozen=True, slots=True)
class _Share:
    manager: TierManager
    first: int
    end: int
    block_ids: tuple[int, ...] = ()


class InstancePopulation:
    """What `MultiInstancePopulator` put where; instances are numbered in the order of `add_instance`."""

    def __init__(self, sequence: TokenSequence, shares: Sequence[_Share]) -> None:
        self.sequence = sequence
        self._shares = shares

    def all_hashes(self) -> list[bytes]:
        """Digests of the whole sequence, also of blocks that no instance was given."""
        return self.sequence.hashes

    def instance_hashes(self, instance: int) -> list[bytes]:
        """Digests of the blocks of one instance."""
        share = self._shares[instance]
        return self.sequence.hashes[share.first : share.end]

    def instance_block_ids(self, instance: int) -> list[int]:
        """Block ids in that instance's manager, in the order of `instance_hashes`."""
        return list(self._shares[instance].block_ids)


class MultiInstancePopulator:
    """Spreads one sequence of blocks over managers; the parts may overlap and may leave gaps."""

    def __init__(self, *, total_blocks: int = 32, block_size: int = DEFAULT_BLOCK_SIZE, start: int = 0) -> None:
        self._total = total_blocks
        self._size = block_size
        self._start = start
        self._shares: list[_Share] = []

    def total_blocks(self, blocks: int) -> Self:
        """Length of the sequence."""
        self._total = blocks
        return self

    def block_size(self, tokens: int) -> Self:
        """Tokens per block."""
        self._size = tokens
        return self

    def start(self, token: int) -> Self:
        """First token of the sequence."""
        self._start = token
        return self

    def add_instance(self, manager: TierManager, first: int, end: int) -> Self:
        """Give `manager` the blocks `first` to `end - 1`."""
        self._shares.append(_Share(manager, first, end))
        return self

    def build(self) -> InstancePopulation:
        """Register every part with its manager.

        Raises:
            ConfigurationError: a part lies outside the sequence, or a manager has another block size.
            CapacityError: a manager has no room for its part.
        """
        for share in self._shares:
            if not 0 <= share.first <= share.end <= self._total:
                raise ConfigurationError(f"blocks {share.first} to {share.end} of a sequence of {self._total}")
        sequence = create_token_sequence(self._total, self._size, self._start)
        filled = []
        for share in self._shares:
            with share.manager.register(sequence[share.first : share.end]) as held:
                filled.append(_Share(share.manager, share.first, share.end, held.block_ids))
        return InstancePopulation(sequence, filled)
