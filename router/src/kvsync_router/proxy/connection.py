"""One keep-alive HTTP/1.1 connection to an engine, as an asyncio protocol around httptools.

It does what a proxy needs and nothing else: one request at a time, its body at once, and the answer as it arrives. What
arrives is bounded: the head in bytes, and the body by pausing the socket while the client reads too slowly.
"""

import asyncio
import contextlib
from collections import deque
from typing import Any, Final

import httptools

from kvsync_router.errors import UpstreamError

MOST_HEAD_BYTES: Final = 1 << 16
PAUSE_BYTES: Final = 1 << 18
"""The socket is not read while so many bytes wait for the client."""


class EngineConnection(asyncio.Protocol):
    """A connection that is idle or has one exchange."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._head_bytes = 0
        self._paused = False
        self._lost: str | None = None
        self._answering = False
        self._keeps_alive = False
        self._surplus = False
        self.headers: list[tuple[bytes, bytes]] = []
        """Headers of the answer; their names are in lower case."""
        self.status = 0
        """Status of the answer; 0 while its head is not complete."""
        self.complete = True
        """The whole answer has arrived, so that the connection may serve another request."""
        self.heard = False
        """Any byte of the answer has arrived."""
        self.reused = False
        """It has served a request before."""

    # -- asyncio's side ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse. An answer that is no HTTP, or that nobody asked for, ends the connection."""
        if self.complete:
            self.close("the engine speaks out of turn")
            return
        self.heard = True
        if not self._answering:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close("the answer is not HTTP")
        if not self._answering and self._head_bytes > MOST_HEAD_BYTES:
            self.close("the headers are too long")
        self._wake()

    def eof_received(self) -> None:
        """The engine has closed its side. An answer without a length ends so."""
        if self._answering and not self.complete and self._ends_with_the_connection():
            self.on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and an answer that is not complete with it."""
        self._lost = self._lost or (type(exc).__name__ if exc is not None else "the engine closed the connection")
        self._transport = None
        self._wake()

    # -- the parser's side ------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins. One with an interim status is followed by another; a second answer is one too many."""
        if self.complete:
            self._keeps_alive = False
            self._surplus = True
        else:
            self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header is complete."""
        if self._surplus:
            return
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._surplus:
            return
        status = self._parser.get_status_code()
        if status >= 200 or status == 101:
            self.status = status
            self._answering = True

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        if self._surplus:
            return
        self._chunks.append(body)
        self._waiting_bytes += len(body)
        if self._waiting_bytes > PAUSE_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is complete, unless its status was an interim one."""
        if self._answering and not self._surplus:
            self.complete = True
            self._keeps_alive = self._parser.should_keep_alive()

    def _ends_with_the_connection(self) -> bool:
        return not any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    # -- the proxy's side -------------------------------------------------------------------------------------------

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self.complete and self._lost is None and self._transport is not None

    @property
    def keeps_alive(self) -> bool:
        """Whether the engine will take another request after this answer."""
        return self.usable and self._keeps_alive and not self._chunks

    def send(self, request: bytes) -> None:
        """Send a whole request. The connection must be usable."""
        self._parser = httptools.HttpResponseParser(self)
        self._chunks.clear()
        self._waiting_bytes = self._head_bytes = self.status = 0
        self._answering = self._keeps_alive = self.complete = self.heard = False
        if self._transport is not None:
            self._transport.write(request)

    async def head(self) -> None:
        """Wait for the head of the answer. Raises UpstreamError."""
        while not self.status:
            await self._arrival()

    def ready(self) -> bytes | None:
        """What has arrived of the body and was not taken; nothing at its end; None if something must be waited for.

        Raises UpstreamError if the connection broke off.
        """
        if self._chunks:
            chunk = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self._waiting_bytes = 0
            if self._paused and self._transport is not None:
                self._paused = False
                self._transport.resume_reading()
            return chunk
        if self.complete:
            return b""
        if self._lost is not None:
            raise UpstreamError(self._lost)
        return None

    async def chunk(self) -> bytes:
        """The next part of the body, or nothing at its end. Raises UpstreamError."""
        while (chunk := self.ready()) is None:
            await self._arrival()
        return chunk

    def close(self, reason: str = "closed") -> None:
        """Close the connection at once."""
        self._lost = self._lost or reason
        if self._transport is not None:
            self._transport.abort()

    async def _arrival(self) -> None:
        if self._lost is not None:
            raise UpstreamError(self._lost)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            with contextlib.suppress(asyncio.InvalidStateError):
                waiter.set_result(None)
