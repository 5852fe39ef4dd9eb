"""The transport for tests and threads that block."""

from typing import Self

import zmq

from kvsync_testkit.transport.endpoint import DEFAULT_CAPACITY, DEFAULT_TIMEOUT_S, Endpoint, Message, parse_message


class Transport(Endpoint["zmq.Socket[bytes]"]):
    """One instance. A context manager; use one instance from one thread at a time, as ZMQ sockets demand."""

    def __init__(self, name: str = "transport", *, capacity: int = DEFAULT_CAPACITY) -> None:
        super().__init__(zmq.Context, name, capacity)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def connect(self, peer: str, endpoint: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Connect an outbox to the inbox at `endpoint`; messages for it are addressed to `peer`.

        Raises:
            TransportError: no connection within `timeout_s`, a peer of this name exists, or this instance is closed.
        """
        socket = self._open_outbox(peer, endpoint)
        if not socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
            socket.close(0)
            raise self._no_connection(endpoint, timeout_s)
        self._outboxes[peer] = socket

    def send(self, *frames: bytes, to: str | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Send one message; `to` may be left out if there is a single peer.

        Raises:
            TransportError: the queue stayed full for `timeout_s`, the peer is unknown, or this instance is closed.
        """
        socket = self._outbox(to)
        if not socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
            raise self._no_room(to, timeout_s)
        socket.send_multipart([self.name.encode(), *frames], zmq.NOBLOCK)

    def receive(self, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Message:
        """The next message from any peer; messages of one peer arrive in the order of sending.

        Raises:
            TransportError: nothing arrived within `timeout_s`, or this instance is closed.
        """
        self._require_open()
        if not self._inbox.poll(int(timeout_s * 1000), zmq.POLLIN):
            raise self._silence(timeout_s)
        return parse_message(self._inbox.recv_multipart(zmq.NOBLOCK))
