"""What several managers share: who holds which block, how often blocks are used, and where events go."""

from typing import TYPE_CHECKING, Self

from kvsync_mockpod.engine.tiers import FrequencyTracker, TrackerSize
from kvsync_testkit.errors import ConfigurationError
from kvsync_testkit.managers.events import EventsManager
from kvsync_testkit.naming import unknown_name

if TYPE_CHECKING:
    from kvsync_testkit.managers.manager import TierManager


class BlockRegistry:
    """The managers of one engine, seen together.

    Attributes:
        events_manager: Collects the events of every manager that was built with this registry, if given.
        frequency: Counts uses (registrations and matches) of blocks in all of those managers, if given.
    """

    def __init__(self, events_manager: EventsManager | None = None, frequency: FrequencyTracker | None = None) -> None:
        self.events_manager = events_manager
        self.frequency = frequency
        self._managers: list[TierManager] = []

    @property
    def managers(self) -> "tuple[TierManager, ...]":
        """The managers, in the order in which they were built."""
        return tuple(self._managers)

    def add(self, manager: "TierManager") -> None:
        """Called by the manager's builder."""
        self._managers.append(manager)

    def holders(self, block_hash: bytes) -> "list[TierManager]":
        """The managers in which a block is resident."""
        return [manager for manager in self._managers if block_hash in manager]

    def count_use(self, block_hash: bytes) -> None:
        """Called by managers for each block registered or matched."""
        if self.frequency is not None:
            self.frequency.touch(block_hash)

    def uses(self, block_hash: bytes) -> int:
        """The estimated number of uses of a block.

        Raises:
            ConfigurationError: the registry was built without frequency tracking.
        """
        if self.frequency is None:
            raise ConfigurationError("this registry was built without frequency_tracking")
        return self.frequency.count(block_hash)


class RegistryBuilder:
    """Settings of a registry: neither events nor frequencies, unless asked for."""

    def __init__(
        self, *, events_manager: EventsManager | None = None, frequency_tracking: TrackerSize | str | None = None
    ) -> None:
        self._events = events_manager
        self._size: TrackerSize | None = None
        if frequency_tracking is not None:
            self.frequency_tracking(frequency_tracking)

    def events_manager(self, events: EventsManager | None = None) -> Self:
        """Collect events, in this manager or (None) in a new one."""
        self._events = events or EventsManager()
        return self

    def frequency_tracking(self, size: TrackerSize | str) -> Self:
        """Count how often blocks are used; `size` is small, medium or large.

        Raises:
            ConfigurationError: another size.
        """
        if isinstance(size, str):
            if size.upper() not in TrackerSize.__members__:
                raise unknown_name("tracker size", size, ("small", "medium", "large"))
            size = TrackerSize[size.upper()]
        self._size = size
        return self

    def build(self) -> BlockRegistry:
        """The registry."""
        return BlockRegistry(self._events, FrequencyTracker(self._size) if self._size else None)
