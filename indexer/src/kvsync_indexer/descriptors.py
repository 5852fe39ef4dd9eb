"""A reserve of file descriptors, so that health and metrics are answered when clients have used up all others.

The kernel hands out the lowest free descriptor, so the number of a new connection's descriptor tells how full the
table is. A connection whose number lies in the reserve may only ask for health and metrics, is closed after one answer,
and is closed early if it asks nothing.
"""

import asyncio
import resource
from collections import deque
from typing import Any, Final

from kvsync_indexer.heads import BoundedHeadProtocol

RESERVE: Final = 32
"""Descriptors of the reserve, of which a quarter may be held by connections that have not asked anything yet."""
SILENCE_S: Final = 2.0
"""How long such a connection may ask nothing."""
SERVED: Final = frozenset({b"/healthz", b"/readyz", b"/metrics"})
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'content-length: 64\r\n\r\n{"error": {"message": "too many connections; try again later"}}\n'
)
_NO_CERTIFICATE: Final = (
    b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'content-length: 57\r\n\r\n{"error": {"message": "a client certificate is needed"}}\n'
)

_silent: deque["ReservingProtocol"] = deque()


def descriptor_limit() -> int:
    """Descriptors that this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


class ReservingProtocol(BoundedHeadProtocol):
    """One connection of any of the HTTP servers."""

    wants_certificate = False
    """Requests for anything but health and metrics need a certificate of the client."""
    certified = True
    reserved = False
    """The descriptor of this connection lies in the reserve."""
    _ends: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401
        """Take the connection, or close it if the reserve is used up as well."""
        super().connection_made(transport)
        self.certified = not self.wants_certificate or bool(transport.get_extra_info("peercert"))
        opened = transport.get_extra_info("socket")
        if opened is None or opened.fileno() < descriptor_limit() - RESERVE:
            return
        self.reserved = True
        _silent.append(self)
        self._ends = self.loop.call_later(SILENCE_S, transport.abort)
        while len(_silent) > RESERVE // 4:
            _silent.popleft().transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._heard()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        """Refuse what the reserve is not for, and what a client without a certificate may not ask."""
        if not self.certified and self.url.partition(b"?")[0] not in SERVED:
            self.transport.write(_NO_CERTIFICATE)
            self.transport.close()
            return
        if self.reserved:
            self._heard()
            if self.url.partition(b"?")[0] not in SERVED:
                self.transport.write(_REFUSAL)
                self.transport.close()
                return
            self.headers.append((b"connection", b"close"))
        super().on_headers_complete()
        if self.reserved and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A part of a body has arrived; one of a refused request leads nowhere."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is complete."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def _heard(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
            self._ends = None
        if self.reserved and self in _silent:
            _silent.remove(self)
