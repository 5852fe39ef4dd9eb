"""What blocking and asynchronous transports share: the sockets, the peers, and the frames of a message."""

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

import zmq

from kvsync_testkit.errors import ConfigurationError, TransportError

DEFAULT_CAPACITY: Final = 1000
"""Messages queued per direction before a sender has to wait, which is also libzmq's default."""
DEFAULT_TIMEOUT_S: Final = 10.0

SocketT = TypeVar("SocketT", bound="zmq.Socket[Any]")


class Message(NamedTuple):
    """A received message: the name of the instance that sent it, and its frames."""

    sender: str
    frames: list[bytes]


class Endpoint(Generic[SocketT]):
    """A bound inbox and one outbox per peer; subclasses add how to wait.

    Attributes:
        name: Sent along with every message.
        endpoint: Where the inbox listens, `tcp://127.0.0.1:PORT`.
        capacity: Most messages queued in each socket. A sender that finds the queue full waits, and fails at its
            deadline; nothing is dropped.
    """

    def __init__(self, new_context: "Callable[[], zmq.Context[SocketT]]", name: str, capacity: int) -> None:
        if capacity < 1:
            raise ConfigurationError(f"capacity {capacity}: a transport queues at least one message")
        self.name = name
        self.capacity = capacity
        self._context = new_context()
        self._inbox = self._open(zmq.PULL)
        self._outboxes: dict[str, SocketT] = {}
        self._inbox.bind("tcp://127.0.0.1:*")
        self.endpoint = self._inbox.getsockopt_string(zmq.LAST_ENDPOINT)

    @property
    def port(self) -> int:
        """The TCP port of the inbox."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def peers(self) -> tuple[str, ...]:
        """Names of the connected instances, in the order of connecting."""
        return tuple(self._outboxes)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._context.closed

    def close(self) -> None:
        """Close every socket and end the ZMQ context. Messages that have not left yet are discarded."""
        if self.closed:
            return
        for socket in (self._inbox, *self._outboxes.values()):
            socket.close(0)
        self._outboxes.clear()
        self._context.term()

    def _open(self, kind: int) -> SocketT:
        socket = self._context.socket(kind)
        socket.set_hwm(self.capacity)
        socket.setsockopt(zmq.LINGER, 0)
        return socket

    def _open_outbox(self, peer: str, endpoint: str) -> SocketT:
        """An outbox that is writable only once its connection stands, so that polling it proves the connection."""
        self._require_open()
        if peer in self._outboxes:
            raise TransportError(f"{self.name} is already connected to {peer}")
        socket = self._open(zmq.PUSH)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.connect(endpoint)
        return socket

    def _outbox(self, to: str | None) -> SocketT:
        self._require_open()
        if to is None and len(self._outboxes) == 1:
            return next(iter(self._outboxes.values()))
        if to is None or to not in self._outboxes:
            known = ", ".join(self._outboxes) or "no peer"
            raise TransportError(f"{self.name} cannot send to {to or 'an unnamed peer'}: it is connected to {known}")
        return self._outboxes[to]

    def _require_open(self) -> None:
        if self.closed:
            raise TransportError(f"{self.name} is closed")

    def _no_room(self, to: str | None, timeout_s: float) -> TransportError:
        return TransportError(f"{self.name} could not send to {to or 'its peer'} within {timeout_s:g} s: queue full")

    def _silence(self, timeout_s: float) -> TransportError:
        return TransportError(f"{self.name} received nothing within {timeout_s:g} s")

    def _no_connection(self, endpoint: str, timeout_s: float) -> TransportError:
        return TransportError(f"{self.name} got no connection to {endpoint} within {timeout_s:g} s")


def parse_message(frames: list[bytes]) -> Message:
    """Split the sender's name from the frames it sent."""
    return Message(frames[0].decode(), frames[1:])
