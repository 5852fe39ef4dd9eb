"""Where the events of one or more managers collect, in the order of the changes, until a publisher takes them."""

from collections.abc import Callable, Sequence
from typing import Final

from kvsync_events import Event, Hash
from kvsync_testkit.errors import CapacityError
from kvsync_testkit.managers.policies import AllEvents, EventPolicy, select_events

MAX_PENDING: Final = 100_000
"""Events kept for a publisher that does not come; vLLM's queue has the same default size."""


class EventsManager:
    """Pending events of all managers that share it.

    Attributes:
        on_pending: Called when events were added to an empty list; a batching publisher starts its window there.
    """

    def __init__(self, policy: EventPolicy | None = None, *, capacity: int = MAX_PENDING) -> None:
        self.on_pending: Callable[[], None] = lambda: None
        self._policy = policy or AllEvents()
        self._capacity = capacity
        self._pending: list[Event] = []

    @property
    def pending(self) -> int:
        """Events that were not taken yet."""
        return len(self._pending)

    def record(self, events: Sequence[Event], position_of: Callable[[Hash], int]) -> None:
        """Add what the policy leaves of these events; `position_of` gives a block's place in its chain.

        Raises:
            CapacityError: more events are pending than the capacity allows.
        """
        selected = [part for event in events for part in select_events(event, self._policy, position_of)]
        if not selected:
            return
        if len(self._pending) + len(selected) > self._capacity:
            raise CapacityError(f"{self._capacity} events are pending and nothing takes them")
        was_empty = not self._pending
        self._pending += selected
        if was_empty:
            self.on_pending()

    def take(self) -> list[Event]:
        """The pending events, which are then pending no longer."""
        events, self._pending = self._pending, []
        return events
