"""The transport for code that runs in an event loop."""

from collections.abc import Awaitable
from typing import Any, Self, cast

import zmq
import zmq.asyncio

from kvsync_testkit.transport.endpoint import DEFAULT_CAPACITY, DEFAULT_TIMEOUT_S, Endpoint, Message, parse_message


class AsyncTransport(Endpoint[zmq.asyncio.Socket]):
    """One instance, made inside a running loop. An asynchronous context manager; `close` itself does not wait."""

    def __init__(self, name: str = "transport", *, capacity: int = DEFAULT_CAPACITY) -> None:
        super().__init__(zmq.asyncio.Context, name, capacity)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self.close()

    async def connect(self, peer: str, endpoint: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect an outbox to the inbox at `endpoint`; messages for it are addressed to `peer`.

        Raises:
            TransportError: no connection within `timeout_s`, a peer of this name exists, or this instance is closed.
        """
        socket = self._open_outbox(peer, endpoint)
        if not await _poll(socket, zmq.POLLOUT, timeout_s):
            socket.close(0)
            raise self._no_connection(endpoint, timeout_s)
        self._outboxes[peer] = socket

    async def send(self, *frames: bytes, to: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Send one message; `to` may be left out if there is a single peer.

        Raises:
            TransportError: the queue stayed full for `timeout_s`, the peer is unknown, or this instance is closed.
        """
        socket = self._outbox(to)
        if not await _poll(socket, zmq.POLLOUT, timeout_s):
            raise self._no_room(to, timeout_s)
        await socket.send_multipart([self.name.encode(), *frames], zmq.NOBLOCK)

    async def receive(self, *, timeout_s: float | None = DEFAULT_TIMEOUT_S) -> Message:
        """The next message from any peer; messages of one peer arrive in the order of sending. None waits for ever.

        Raises:
            TransportError: nothing arrived within `timeout_s`, or this instance is closed.
        """
        self._require_open()
        if not await _poll(self._inbox, zmq.POLLIN, timeout_s):
            raise self._silence(timeout_s or 0)
        return parse_message(await self._inbox.recv_multipart(zmq.NOBLOCK))


def _poll(socket: zmq.asyncio.Socket, events: int, timeout_s: float | None) -> Awaitable[int]:
    # pyzmq's stub of the asynchronous socket lacks the flags that its poll takes.
    return cast("Awaitable[int]", cast("Any", socket).poll(-1 if timeout_s is None else int(timeout_s * 1000), events))
