"""Making transports: one, or a pair that is connected in both directions before it is handed out."""

from typing import Self

from kvsync_testkit.transport.asynchronous import AsyncTransport
from kvsync_testkit.transport.blocking import Transport
from kvsync_testkit.transport.endpoint import DEFAULT_CAPACITY, DEFAULT_TIMEOUT_S


class TransportBuilder:
    """Settings of a transport or a pair; each can also be given as a keyword argument."""

    def __init__(
        self,
        *,
        names: tuple[str, str] = ("a", "b"),
        capacity: int = DEFAULT_CAPACITY,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._names = names
        self._capacity = capacity
        self._timeout_s = timeout_s

    def names(self, first: str, second: str = "b") -> Self:
        """Names of the two instances; a single instance takes the first."""
        self._names = (first, second)
        return self

    def capacity(self, messages: int) -> Self:
        """Most messages queued in each socket."""
        self._capacity = messages
        return self

    def timeout(self, seconds: float) -> Self:
        """How long the two of a pair may take to connect."""
        self._timeout_s = seconds
        return self

    def build(self) -> Transport:
        """One blocking instance."""
        return Transport(self._names[0], capacity=self._capacity)

    def build_pair(self) -> tuple[Transport, Transport]:
        """Two blocking instances, connected both ways.

        Raises:
            TransportError: they did not connect in time; neither is left open.
        """
        first, second = (Transport(name, capacity=self._capacity) for name in self._names)
        try:
            first.connect(second.name, second.endpoint, timeout_s=self._timeout_s)
            second.connect(first.name, first.endpoint, timeout_s=self._timeout_s)
        except BaseException:
            first.close()
            second.close()
            raise
        return first, second

    async def build_async(self) -> AsyncTransport:
        """One instance for the running event loop."""
        return AsyncTransport(self._names[0], capacity=self._capacity)

    async def build_pair_async(self) -> tuple[AsyncTransport, AsyncTransport]:
        """Two instances for the running event loop, connected both ways.

        Raises:
            TransportError: they did not connect in time; neither is left open.
        """
        first, second = (AsyncTransport(name, capacity=self._capacity) for name in self._names)
        try:
            await first.connect(second.name, second.endpoint, timeout_s=self._timeout_s)
            await second.connect(first.name, first.endpoint, timeout_s=self._timeout_s)
        except BaseException:
            first.close()
            second.close()
            raise
        return first, second


def create_transport(name: str = "a", *, capacity: int = DEFAULT_CAPACITY) -> Transport:
    """One blocking instance on a random loopback port."""
    return Transport(name, capacity=capacity)


def create_transport_pair(
    first: str = "a", second: str = "b", *, capacity: int = DEFAULT_CAPACITY
) -> tuple[Transport, Transport]:
    """Two blocking instances, connected both ways."""
    return TransportBuilder(names=(first, second), capacity=capacity).build_pair()


async def create_async_transport(name: str = "a", *, capacity: int = DEFAULT_CAPACITY) -> AsyncTransport:
    """One instance for the running event loop, on a random loopback port."""
    return AsyncTransport(name, capacity=capacity)


async def create_async_transport_pair(
    first: str = "a", second: str = "b", *, capacity: int = DEFAULT_CAPACITY
) -> tuple[AsyncTransport, AsyncTransport]:
    """Two instances for the running event loop, connected both ways."""
    return await TransportBuilder(names=(first, second), capacity=capacity).build_pair_async()
