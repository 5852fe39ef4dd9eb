"""The bus over a real ZMQ socket on a random loopback port."""

from typing import Any, Final, cast

import zmq
import zmq.asyncio

from kvsync_testkit.errors import BusError
from kvsync_testkit.events.bus import DEFAULT_CAPACITY, DEFAULT_TIMEOUT_S, Bus, Frames, Subscription
from kvsync_testkit.waiting import until

_SEND_TIMEOUT_MS: Final = 5000


class ZmqSubscription(Subscription):
    """A SUB socket."""

    def __init__(self, topic: str, context: zmq.asyncio.Context, endpoint: str, capacity: int) -> None:
        super().__init__(topic)
        self._socket = context.socket(zmq.SUB)
        self._socket.set_hwm(capacity)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt_string(zmq.SUBSCRIBE, topic)
        self._socket.connect(endpoint)

    async def _receive(self, timeout_s: float) -> Frames:
        # pyzmq's stub of the asynchronous socket lacks the flags that its poll takes.
        if not await cast("Any", self._socket).poll(int(timeout_s * 1000), zmq.POLLIN):
            raise self.silence(timeout_s)
        return await self._socket.recv_multipart(zmq.NOBLOCK)

    def _close(self) -> None:
        self._socket.close(0)


class ZmqBus(Bus):
    """An XPUB socket, which is a PUB socket on the wire but tells when a subscription has reached it.

    Attributes:
        endpoint: Where other subscribers, such as an index under test, can connect.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        super().__init__(capacity)
        self._context = zmq.Context()
        self._subscribers = zmq.asyncio.Context(self._context)
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set_hwm(capacity)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # also tell of a topic that another socket subscribed to before
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)  # wait instead of dropping for a slow subscriber, …
        self._socket.setsockopt(zmq.SNDTIMEO, _SEND_TIMEOUT_MS)  # … which may also be one that is just being closed
        self._socket.bind("tcp://127.0.0.1:*")
        self.endpoint = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    async def _subscribe(self, topic: str) -> ZmqSubscription:
        subscription = ZmqSubscription(topic, self._subscribers, self.endpoint, self.capacity)
        try:
            await self.wait_for_subscriber(topic)
        except BaseException:
            subscription.close()
            raise
        return subscription

    async def wait_for_subscriber(self, topic: str = "", *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Return once the subscription of some socket to exactly this topic is in force.

        Raises:
            DeadlineError: none arrived within `timeout_s`.
        """
        wanted = b"\x01" + topic.encode()

        def arrived() -> bool:
            return self._socket.recv(zmq.NOBLOCK) == wanted

        await until(f"subscription to {topic!r}", arrived, deadline_s=timeout_s, every_s=0.001, retry_on=(zmq.Again,))

    def _publish(self, frames: Frames, matching: list[Subscription]) -> None:  # noqa: ARG002 - ZMQ matches by itself
        try:
            self._socket.send_multipart(frames)
        except zmq.Again:
            raise BusError("a subscriber of the bus does not keep up") from None

    def _close(self) -> None:
        self._socket.close(0)
        self._context.term()
