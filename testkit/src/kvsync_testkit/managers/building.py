"""The builder of managers."""

from typing import Literal, Self, get_args

from kvsync_mockpod.engine.tiers import Eviction
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.managers.events import EventsManager
from kvsync_testkit.managers.manager import TierManager
from kvsync_testkit.managers.registry import BlockRegistry
from kvsync_testkit.managers.tiers import Tier
from kvsync_testkit.naming import unknown_name
from kvsync_testkit.token_blocks import DEFAULT_BLOCK_SIZE

Duplicates = Literal["refuse", "allow"]


class ManagerBuilder:
    """Settings of a manager: 64 blocks of 16 tokens, a registry of its own and no events, unless changed."""

    def __init__(
        self,
        tier: Tier | str = Tier.G1,
        *,
        block_count: int = 64,
        block_size: int = DEFAULT_BLOCK_SIZE,
        registry: BlockRegistry | None = None,
        events_manager: EventsManager | None = None,
        eviction: Eviction | None = None,
        duplicates: Duplicates | None = None,
    ) -> None:
        self._tier = Tier.of(tier)
        self._count = block_count
        self._size = block_size
        self._registry = registry
        self._events = events_manager
        self._eviction = eviction
        self._duplicates = duplicates

    def block_count(self, blocks: int) -> Self:
        """Capacity in blocks."""
        self._count = blocks
        return self

    def block_size(self, tokens: int) -> Self:
        """Tokens per block."""
        self._size = tokens
        return self

    def registry(self, registry: BlockRegistry) -> Self:
        """Share a registry with other managers; its events manager is used unless another is named."""
        self._registry = registry
        return self

    def events_manager(self, events: EventsManager) -> Self:
        """Where events collect."""
        self._events = events
        return self

    def eviction(self, order: Eviction) -> Self:
        """Evict the least recently used block (`lru`, the default), or such a block without children (`lineage`)."""
        self._eviction = order
        return self

    def duplicates(self, policy: Duplicates) -> Self:
        """Whether a block that is registered again is refused (the default) or kept as another copy (`allow`)."""
        self._duplicates = policy
        return self

    def build(self) -> TierManager:
        """The manager.

        Raises:
            ConfigurationError: a count or size below 1, or a policy that is unknown or that G1 does not have: the
                device's block table always evicts a leaf first and keeps every copy.
        """
        for name, value, known in (
            ("eviction order", self._eviction, get_args(Eviction)),
            ("duplication policy", self._duplicates, get_args(Duplicates)),
        ):
            if value is not None and value not in known:
                raise unknown_name(name, value, known)
            if value is not None and self._tier is Tier.G1:
                raise ConfigurationError(f"G1 has no {name}: it evicts a leaf first and keeps every copy")
        if self._count < 1 or self._size < 1:
            raise ConfigurationError(f"a manager of {self._count} blocks of {self._size} tokens cannot hold anything")
        registry = self._registry or BlockRegistry()
        events = self._events or registry.events_manager
        manager = TierManager(
            self._tier,
            self._count,
            self._size,
            registry,
            events,
            eviction=self._eviction or "lru",
            duplicates=self._duplicates == "allow",
        )
        registry.add(manager)
        return manager
