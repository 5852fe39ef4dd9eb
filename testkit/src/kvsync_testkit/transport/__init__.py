"""Messages between two parts of a test over real ZMQ, on loopback TCP ports that the system chooses.

Each instance binds an inbox and connects an outbox per peer, so traffic flows both ways without request and reply
having to alternate. `Transport` blocks and `AsyncTransport` awaits; both refuse to queue without bound, and both leave
no socket and no thread behind when they are closed.
"""

from kvsync_testkit.transport.asynchronous import AsyncTransport
from kvsync_testkit.transport.blocking import Transport
from kvsync_testkit.transport.building import (
    TransportBuilder,
    create_async_transport,
    create_async_transport_pair,
    create_transport,
    create_transport_pair,
)
from kvsync_testkit.transport.endpoint import Message

__all__ = [
    "AsyncTransport",
    "Message",
    "Transport",
    "TransportBuilder",
    "create_async_transport",
    "create_async_transport_pair",
    "create_transport",
    "create_transport_pair",
]
