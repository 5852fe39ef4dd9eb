"""How much of what replay clients were sent they have not read yet, measured at libzmq.

A ROUTER socket takes messages for a client until its high-water mark, whose unit is messages, and does not say how many
of them the client has not read. libzmq does release the memory of a message once it is written to the connection, so
that the messages that it has not released are those that the client does not read.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

import zmq


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """Limits of the memory that slow clients can take."""

    clients: int = 64
    """Clients that have unread messages; the requests of further ones are not answered."""
    client_bytes: int = 4 * 2**20
    """Unread bytes of one client, above which its answer is interrupted."""
    patience_s: float = 5.0
    """How long an interrupted answer waits for its client to read before it is dropped."""


class Backlog:
    """Unread bytes per client."""

    def __init__(self, limits: BacklogLimits) -> None:
        self.limits = limits
        self._unread: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}
        self._bytes: dict[bytes, int] = {}

    @property
    def total_bytes(self) -> int:
        """Unread bytes of all clients."""
        for client in list(self._unread):
            self.unread(client)
        return sum(self._bytes.values())

    def add(self, client: bytes, tracker: zmq.MessageTracker, size: int) -> None:
        """A message of `size` bytes was handed to libzmq."""
        self._unread.setdefault(client, deque()).append((tracker, size))
        self._bytes[client] = self._bytes.get(client, 0) + size

    def unread(self, client: bytes) -> int:
        """Bytes that this client has not read."""
        queue = self._unread.get(client)
        if queue is None:
            return 0
        while queue and queue[0][0].done:
            self._bytes[client] -= queue.popleft()[1]
        if not queue:
            del self._unread[client], self._bytes[client]
            return 0
        return self._bytes[client]

    def full(self, client: bytes) -> bool:
        """Whether the client has more unread bytes than it may have."""
        return self.unread(client) > self.limits.client_bytes

    def admits(self, client: bytes, serving: Collection[bytes]) -> bool:
        """Whether a request of this client may be answered while the clients `serving` get their answers."""
        if self.full(client):
            return False
        others = {other for other in list(self._unread) if self.unread(other)} | set(serving)
        return client in others or len(others) < self.limits.clients
