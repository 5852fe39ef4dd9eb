"""The leader: which blocks of a prompt are in the cache, where new ones go, and what is held meanwhile."""

from collections.abc import Sequence
from dataclasses import dataclass

from kvsync_testkit.connector.settings import ConnectorRole, ConnectorSettings
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.managers import AllocatedBlocks, HeldBlocks, ManagerBuilder, Tier, TierManager
from kvsync_testkit.token_blocks import TokenBlock, split_into_blocks


@dataclass(frozen=True, slots=True)
class SavePlan:
    """Blocks to copy from a device to host memory; pass it to `ConnectorLeader.finish_save` when they are there.

    Attributes:
        positions: Places of the blocks in the prompt: the device ids to read are the request's ids at these places.
        host_ids: Where each goes.
    """

    positions: tuple[int, ...]
    host_ids: tuple[int, ...]
    allocated: AllocatedBlocks
    blocks: tuple[TokenBlock, ...]


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Blocks to copy from host memory to a device; they stay in place until `release`.

    Attributes:
        positions: Places of the blocks in the prompt.
        host_ids: Where each is.
    """

    positions: tuple[int, ...]
    host_ids: tuple[int, ...]
    held: HeldBlocks

    def release(self) -> None:
        """Let the blocks be evicted again, once they are copied or no longer needed."""
        self.held.release()


class ConnectorLeader:
    """Tables of the host tier, and of the disk tier if there is one.

    Attributes:
        settings: What it was built from.
        g2: The host tier.
        g3: The disk tier, or None.
    """

    def __init__(self, settings: ConnectorSettings) -> None:
        self.settings = settings
        self.g2 = self._manager(Tier.G2, settings.host_blocks)
        self.g3 = self._manager(Tier.G3, settings.disk_blocks) if settings.disk_blocks else None

    def matched_tokens(self, token_ids: Sequence[int], computed: int = 0) -> int:
        """How many tokens beyond the first `computed` ones the cache can supply: a multiple of the block size.

        The last token of a prompt is always left to compute, as vLLM's connectors leave it.
        """
        blocks = self._full_blocks(token_ids)[: (len(token_ids) - 1) // self.settings.block_size]
        with self.g2.match([block.hash for block in blocks]) as held:
            return max(len(held) * self.settings.block_size - computed, 0)

    def plan_save(self, token_ids: Sequence[int]) -> SavePlan:
        """Room for those full blocks of a prompt that the cache does not have.

        Raises:
            ConfigurationError: this connector only consumes.
            CapacityError: there is no room for all of them.
        """
        if self.settings.role is ConnectorRole.CONSUMER:
            raise ConfigurationError(f"a connector of role {self.settings.role} saves nothing")
        fresh = [block for block in self._full_blocks(token_ids) if block.hash not in self.g2]
        allocated = self.g2.allocate(len(fresh))
        return SavePlan(tuple(block.position for block in fresh), allocated.block_ids, allocated, tuple(fresh))

    def finish_save(self, plan: SavePlan) -> list[bytes]:
        """The bytes of a plan are in place: its blocks can be found from now on. Returns their digests."""
        with plan.allocated.complete(plan.blocks).register() as held:
            return list(held.hashes)

    def plan_load(self, token_ids: Sequence[int], computed: int = 0) -> LoadPlan:
        """The blocks behind the first `computed` tokens that the cache can supply, held until they are released.

        Raises:
            ConfigurationError: this connector only produces, or `computed` is not a multiple of the block size.
        """
        size = self.settings.block_size
        if self.settings.role is ConnectorRole.PRODUCER:
            raise ConfigurationError(f"a connector of role {self.settings.role} loads nothing")
        if computed % size:
            raise ConfigurationError(f"{computed} computed tokens are not a multiple of the block size {size}")
        first = computed // size
        last = first + self.matched_tokens(token_ids, computed) // size
        held = self.g2.match([block.hash for block in self._full_blocks(token_ids)[:last]])
        return LoadPlan(tuple(range(first, last)), held.block_ids[first:], held)

    def _full_blocks(self, token_ids: Sequence[int]) -> tuple[TokenBlock, ...]:
        return split_into_blocks(token_ids, self.settings.block_size).blocks

    def _manager(self, tier: Tier, blocks: int) -> TierManager:
        return ManagerBuilder(tier, block_count=blocks, block_size=self.settings.block_size).build()
