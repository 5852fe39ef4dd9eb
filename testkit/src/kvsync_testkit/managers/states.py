"""The life of blocks in a manager as types: a step can only be taken from the state before it.

    manager.allocate(n) -> AllocatedBlocks.complete(blocks) -> CompletedBlocks.register() -> HeldBlocks
    manager.match(hashes) -> HeldBlocks

All three are context managers that release what they hold; a state that was advanced holds nothing any more.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.token_blocks import TokenBlock

if TYPE_CHECKING:
    from kvsync_testkit.managers.manager import TierManager


class _Grip:
    """What the three states have in common: a hold on blocks that ends once."""

    def __init__(
        self,
        manager: "TierManager",
        grip: Any,  # noqa: ANN401
        block_ids: Sequence[int],
        prefix: "HeldBlocks | None" = None,
    ) -> None:
        self._manager = manager
        self._grip = grip
        self._live = True
        self._prefix = prefix
        self.block_ids = tuple(block_ids)
        """Ids of the blocks, by position; they index a layout of the same tier."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()

    def __len__(self) -> int:
        return len(self.block_ids)

    def release(self) -> None:
        """Let go. Registered blocks stay resident until they are evicted; others are free. Harmless if repeated."""
        if self._live:
            self._live = False
            prefix_ids = self._prefix.block_ids if self._prefix else ()
            registered = isinstance(self, HeldBlocks)
            self._manager.let_go(
                self._grip,
                held=(*prefix_ids, *self.block_ids) if registered else prefix_ids,
                unused=() if registered else self.block_ids,
            )

    def require_live(self) -> None:
        """Refuse a state that was left.

        Raises:
            ConfigurationError: the blocks were released, or went on to their next state.
        """
        if not self._live:
            raise ConfigurationError("these blocks were released, or already went to their next state")

    def _hand_on(self) -> Any:  # noqa: ANN401 - opaque, as stores have it
        self.require_live()
        self._live = False
        return self._grip


class AllocatedBlocks(_Grip):
    """Blocks without content. Write into `block_ids` of a layout, then complete them."""

    def complete(self, blocks: Sequence[TokenBlock]) -> "CompletedBlocks":
        """Say which tokens the blocks hold, one per allocated block and in the same order.

        Raises:
            ConfigurationError: another number of blocks, or blocks of another size than the manager's.
        """
        self._manager.check_complete(len(self), blocks)
        return CompletedBlocks(self._manager, self._hand_on(), self.block_ids, blocks, self._prefix)


class CompletedBlocks(_Grip):
    """Blocks whose content is known, but which cannot be found by hash yet."""

    def __init__(
        self,
        manager: "TierManager",
        grip: Any,  # noqa: ANN401
        block_ids: Sequence[int],
        blocks: Sequence[TokenBlock],
        prefix: "HeldBlocks | None" = None,
    ) -> None:
        super().__init__(manager, grip, block_ids, prefix)
        self.blocks = tuple(blocks)

    def register(self) -> "HeldBlocks":
        """Make the blocks findable by hash, and announce them.

        In G2 and G3 a block that is resident already is refused: its id is free again, and the result has the id of the
        resident one. In G1 it becomes a second copy.

        Raises:
            ConfigurationError: in G1, where the engine's block table holds no block without its ancestors: a later
                block of the chain is resident while an earlier one is not, or a copy begins in the middle of a chain
                that is resident (allocate it `after` the matched prefix).
        """
        self._manager.check_register(self.blocks, continues=self._prefix is not None)
        return self._manager.take_in(self._hand_on(), self.block_ids, self.blocks, self._prefix)


class HeldBlocks(_Grip):
    """Registered blocks that cannot be evicted while they are held."""

    def __init__(
        self,
        manager: "TierManager",
        grip: Any,  # noqa: ANN401
        block_ids: Sequence[int],
        hashes: Sequence[bytes],
        prefix: "HeldBlocks | None" = None,
    ) -> None:
        super().__init__(manager, grip, block_ids, prefix)
        self.hashes = tuple(hashes)
        """Digests of the blocks, by position."""
