"""One tier of blocks: allocation, registration and lookup, with an id per block."""

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, cast

from kvsync_events import Hash
from kvsync_mockpod.engine.tiers import Eviction
from kvsync_testkit.errors import CapacityError, ConfigurationError
from kvsync_testkit.managers.events import EventsManager
from kvsync_testkit.managers.registry import BlockRegistry
from kvsync_testkit.managers.states import AllocatedBlocks, HeldBlocks
from kvsync_testkit.managers.stores import DeviceStore, LowerStore, Store, chains
from kvsync_testkit.managers.tiers import Tier
from kvsync_testkit.token_blocks import TokenBlock


class TierManager:
    """A bounded set of blocks in one tier; made by `ManagerBuilder`.

    Block ids run from 0 to `block_count - 1` and are handed out lowest first at the start, then in the order in which
    they became free.
    """

    def __init__(
        self,
        tier: Tier,
        block_count: int,
        block_size: int,
        registry: BlockRegistry,
        events: EventsManager | None,
        *,
        eviction: Eviction = "lru",
        duplicates: bool = False,
    ) -> None:
        self.tier = tier
        self.block_count = block_count
        self.block_size = block_size
        self.registry = registry
        self.events_manager = events
        publish = events is not None
        self._store: Store = (
            DeviceStore(block_count, block_size, self._removed, publish=publish)
            if tier is Tier.G1
            else LowerStore(
                block_count,
                block_size,
                tier.medium,
                self._removed,
                publish=publish,
                eviction=eviction,
                duplicates=duplicates,
            )
        )
        self._free_ids = deque(range(block_count))
        self._ids: dict[bytes, list[int]] = {}
        """Ids of each resident hash, first copy first."""
        self._holds: Counter[int] = Counter()
        self._blocks: dict[bytes, TokenBlock] = {}

    def __contains__(self, block_hash: object) -> bool:
        return block_hash in self._ids

    @property
    def available(self) -> int:
        """Blocks that `allocate` can give now, evicting resident ones that are not held."""
        return self._store.available

    @property
    def resident(self) -> int:
        """Distinct blocks that can be found by hash."""
        return len(self._ids)

    def allocate(self, count: int, *, after: HeldBlocks | None = None) -> AllocatedBlocks:
        """`count` blocks to be filled; whatever must be evicted for them is, and is announced.

        Args:
            count: How many.
            after: The matched prefix that the new blocks continue. It is held along with them, so that in G1 it cannot
                be evicted before its children.

        Raises:
            CapacityError: fewer blocks are available; nothing was evicted.
        """
        if not 0 <= count <= self.available:
            raise CapacityError(f"{self.tier}: {count} blocks asked for, {self.available} of {self.block_count} free")
        if after is not None:
            after.require_live()
            self._holds.update(after.block_ids)
        grip = self._store.allocate(count, () if after is None else after.hashes)
        self._publish()
        return AllocatedBlocks(self, grip, [self._free_ids.popleft() for _ in range(count)], after)

    def register(self, blocks: Sequence[TokenBlock]) -> HeldBlocks:
        """Allocate, complete and register in one step.

        Raises:
            CapacityError, ConfigurationError: as the single steps.
        """
        allocated = self.allocate(len(blocks))
        with allocated:
            completed = allocated.complete(blocks)
        with completed:
            return completed.register()

    def match(self, hashes: Sequence[bytes]) -> HeldBlocks:
        """The longest resident prefix of `hashes`, held until it is released; empty if the first is not resident."""
        grip, count = self._store.match(hashes)
        found = hashes[:count]
        ids = [self._ids[one][0] for one in found]
        self._hold(ids, found)
        return HeldBlocks(self, grip, ids, found)

    def scan(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Every one of `hashes` that is resident, contiguous or not, with its block id. Nothing is held."""
        return {one: self._ids[one][0] for one in hashes if one in self._ids}

    def token_block(self, block_hash: bytes) -> TokenBlock:
        """What a resident block was registered as.

        Raises:
            KeyError: the block is not resident.
        """
        return self._blocks[block_hash]

    # --- called by the states of blocks

    def check_complete(self, count: int, blocks: Sequence[TokenBlock]) -> None:
        """Refuse content that does not fit what was allocated."""
        if len(blocks) != count:
            raise ConfigurationError(f"{count} blocks were allocated, {len(blocks)} are to complete them")
        for block in blocks:
            if block.block_size != self.block_size:
                raise ConfigurationError(f"a block of {block.block_size} tokens in a manager of {self.block_size}")

    def check_register(self, blocks: Sequence[TokenBlock], *, continues: bool) -> None:
        """Refuse what would leave the device's table with a block whose ancestors are not there."""
        if self.tier is not Tier.G1:
            return
        for at, chain in enumerate(chains(blocks)):
            resident = [block.hash in self._ids for block in chain]
            if not all(resident[: sum(resident)]):
                place = chain[resident.index(False)].position
                raise ConfigurationError(f"G1 holds later blocks of this chain, but not the one at position {place}")
            if resident[0] and chain[0].position and not (continues and not at):
                raise ConfigurationError(
                    f"G1 holds the block at position {chain[0].position} already: a copy begins at position 0, "
                    "or is allocated after the matched prefix"
                )

    def take_in(
        self,
        grip: Any,  # noqa: ANN401
        block_ids: Sequence[int],
        blocks: Sequence[TokenBlock],
        prefix: HeldBlocks | None,
    ) -> HeldBlocks:
        """Register completed blocks."""
        ids = []
        for block_id, block, taken in zip(block_ids, blocks, self._store.register(grip, blocks), strict=True):
            if taken:
                self._ids.setdefault(block.hash, []).append(block_id)
                self._blocks[block.hash] = block
                ids.append(block_id)
            else:
                self._free_ids.append(block_id)
                ids.append(self._ids[block.hash][0])
        hashes = [block.hash for block in blocks]
        self._hold(ids, hashes)
        self._publish()
        return HeldBlocks(self, grip, ids, hashes, prefix)

    def let_go(self, grip: Any, *, held: Sequence[int], unused: Sequence[int]) -> None:  # noqa: ANN401
        """Release a grip: `held` are ids that it kept from being evicted, `unused` ids that hold nothing yet."""
        self._store.release(grip)
        self._holds.subtract(held)
        self._free_ids.extend(unused)

    # --- helpers

    def _hold(self, ids: Sequence[int], hashes: Sequence[bytes]) -> None:
        self._holds.update(ids)
        for one in hashes:
            self.registry.count_use(one)

    def _removed(self, block_hash: bytes) -> None:
        """The store evicted one copy; copies are equal, so any of them that is not held will do."""
        ids = self._ids[block_hash]
        free = next(one for one in ids if not self._holds[one])
        ids.remove(free)
        if not ids:
            del self._ids[block_hash]
        self._free_ids.append(free)

    def _publish(self) -> None:
        events = self._store.take_events()
        if self.events_manager is not None:
            self.events_manager.record(events, self._position)
        for event in events:
            for one in getattr(event, "block_hashes", ()):
                if one not in self._ids:
                    self._blocks.pop(one, None)

    def _position(self, block_hash: Hash) -> int:
        return self._blocks[cast("bytes", block_hash)].position
