"""What both buses promise: fan-out by topic prefix, in order, bounded, and nothing for those who come late."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Self

from kvsync_testkit.errors import BusError, ConfigurationError

Frames = list[bytes]
DEFAULT_CAPACITY: Final = 1000
"""Messages a subscription holds before publishing fails; libzmq's default as well."""
DEFAULT_TIMEOUT_S: Final = 10.0


class Subscription(ABC):
    """One subscriber's end of a bus.

    Attributes:
        topic: The prefix of the topics that arrive here.
        closed: Whether `close` was called; the bus then forgets the subscription.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.closed = False
        self._matched = 0
        self._received = 0

    @property
    def outstanding(self) -> int:
        """Messages that were published for this subscription and not received yet."""
        return self._matched - self._received

    async def receive(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Frames:
        """The frames of the next message: topic, sequence, payload.

        Raises:
            BusError: nothing came within `timeout_s`, or the subscription is closed.
        """
        if self.closed:
            raise BusError("the subscription is closed")
        frames = await self._receive(timeout_s)
        self._received += 1
        return frames

    def expect(self, frames: Sequence[bytes]) -> bool:
        """Called by the bus for each message before it is sent: counts it if its topic matches."""
        matches = frames[0].startswith(self.topic.encode())
        self._matched += matches
        return matches

    def close(self) -> None:
        """Receive nothing more. Closing twice has no effect."""
        if not self.closed:
            self.closed = True
            self._close()

    @abstractmethod
    async def _receive(self, timeout_s: float) -> Frames: ...

    @abstractmethod
    def _close(self) -> None: ...

    def silence(self, timeout_s: float) -> BusError:
        """The error for a wait that ended without a message."""
        return BusError(f"nothing arrived on {self.topic!r} within {timeout_s:g} s")


class Bus(ABC):
    """A message bus. A context manager that closes its subscriptions too.

    Attributes:
        capacity: Most messages queued per subscription.
        published: Messages published so far, whether or not anything subscribed to them.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        if capacity < 1:
            raise ConfigurationError(f"capacity {capacity}: a subscription queues at least one message")
        self.capacity = capacity
        self.published = 0
        self._subscriptions: list[Subscription] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    async def subscribe(self, topic: str = "") -> Subscription:
        """Receive from now on what is published under topics that begin with `topic`.

        The subscription is in force when this returns: whatever is published next arrives. What was published before
        does not.

        Raises:
            BusError: the bus is closed.
        """
        self._require_open()
        subscription = await self._subscribe(topic)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, frames: Sequence[bytes]) -> None:
        """Send a message (topic, sequence, payload) to every matching subscription; without one it is gone.

        Raises:
            BusError: the bus is closed, or a matching subscription is full; nothing is dropped silently.
        """
        self._require_open()
        self._subscriptions = [one for one in self._subscriptions if not one.closed]
        full = [one for one in self._subscriptions if one.outstanding >= self.capacity]
        if any(frames[0].startswith(one.topic.encode()) for one in full):
            raise BusError(f"a subscription has {self.capacity} messages that nothing received")
        self._publish(list(frames), [one for one in self._subscriptions if one.expect(frames)])
        self.published += 1

    def close(self) -> None:
        """Close the bus and its subscriptions. Closing twice has no effect."""
        if not self._closed:
            self._closed = True
            for subscription in self._subscriptions:
                subscription.close()
            self._close()

    def _require_open(self) -> None:
        if self._closed:
            raise BusError("the bus is closed")

    @abstractmethod
    async def _subscribe(self, topic: str) -> Subscription: ...

    @abstractmethod
    def _publish(self, frames: Frames, matching: list[Subscription]) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...
