"""The head of an HTTP request, which is its request line and its headers, bounded in bytes and in time.

uvicorn and its parser keep what arrives of a head until it is complete, however long that takes and however long it is.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_BYTES: Final = 64 << 10
WITHIN_S: Final = 10.0
"""Seconds from the first byte of a request to the end of its head."""
_REFUSAL: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b'content-length: 51\r\n\r\n{"error": {"message": "the headers are too long"}}\n'
)


class BoundedHeadProtocol(HttpToolsProtocol):
    """One connection. A subclass that answers requests itself must call `head_begins` and `head_ends`."""

    _head_bytes: int | None = None
    """Bytes of the head so far; None if none has begun."""
    _head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse, and close the connection if a head is too long and still not complete."""
        super().data_received(data)
        if self._head_bytes is None:
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_BYTES and not self.transport.is_closing():
            self.transport.write(_REFUSAL)
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request begins."""
        self.head_begins()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self.head_ends()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.head_ends()
        super().connection_lost(exc)

    def head_begins(self) -> None:
        """Begin to count."""
        self.head_ends()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(WITHIN_S, self.transport.abort)

    def head_ends(self) -> None:
        """Stop counting."""
        self._head_bytes = None
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
