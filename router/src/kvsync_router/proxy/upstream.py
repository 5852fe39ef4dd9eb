"""One attempt at an endpoint: the request is sent, and the answer passed on as it arrives."""

import asyncio
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from kvsync_router.decisions.circuit import FAILED_STATUSES
from kvsync_router.decisions.endpoints import Endpoint, EndpointInfo
from kvsync_router.decisions.predictions import AnswerWatch
from kvsync_router.errors import UpstreamError
from kvsync_router.proxy.connection import EngineConnection
from kvsync_router.proxy.exchange import Headers, Incoming, Reply
from kvsync_router.proxy.pool import ConnectionPool

TOO_MANY = 429
RETRIED_STATUSES = FAILED_STATUSES | {TOO_MANY}
"""Statuses after which another endpoint is tried: it failed, or its queue is full."""
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection trailer transfer-encoding"
    b" te upgrade host content-length expect".split()  # codespell:ignore te
)
_FRAMING: Final = HOP_BY_HOP - {b"content-length"}


_STATUSES: Final = range(200, 600)
_REDIRECTS: Final = range(300, 400)
_BAD_NAME: Final = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What RFC 9110 allows in no header; the router's HTTP server would refuse to send it."""


class Upstream:
    """An answer that has begun: its status, its headers and its first chunk have arrived."""

    __slots__ = ("_connection", "_pool", "_url", "first")

    def __init__(self, pool: ConnectionPool, url: str, connection: EngineConnection, first: bytes) -> None:
        self._pool = pool
        self._url = url
        self._connection = connection
        self.first = first

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self._connection.status

    @property
    def headers(self) -> Headers:
        """The headers of the answer, with names in lower case."""
        return self._connection.headers

    @property
    def content_type(self) -> str:
        """The content type of the answer, or an empty string."""
        return next((value for name, value in self.headers if name == b"content-type"), b"").decode("latin-1")

    @property
    def whole(self) -> bool:
        """Whether nothing comes after the first chunk."""
        return self._connection.complete

    def ready(self) -> bytes | None:
        """The next chunk if it is there, nothing at the end, None if it must be waited for. Raises UpstreamError."""
        return self._connection.ready()

    async def chunk(self) -> bytes:
        """The next chunk, or nothing at the end. Raises UpstreamError."""
        return await self._connection.chunk()

    def close(self) -> None:
        """End the exchange with the engine. Its connection is kept if the answer is complete."""
        if self._connection.keeps_alive:
            self._pool.keep(self._url, self._connection)
        else:
            self._connection.close()


class UpstreamClient:
    """Sends requests to endpoints."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool

    async def begin(
        self, incoming: Incoming, body: bytes, endpoint: Endpoint, *, timeout_s: float, final: bool
    ) -> Upstream:
        """Send the request and wait for the first byte of the answer's body. Raises UpstreamError.

        An answer with a status in `RETRIED_STATUSES` is an error too, unless this is the `final` attempt. The attempt
        ends early if the endpoint turns out to hang.
        """
        request = _request(incoming, body, endpoint.info)
        waits = asyncio.timeout(timeout_s)
        interrupt = _interrupt(waits, endpoint)
        endpoint.waiting.add(interrupt)
        try:
            async with waits:
                return await self._exchange(request, endpoint.info.url, final=final)
        except TimeoutError as error:
            raise UpstreamError("the endpoint hangs" if endpoint.hangs else "no answer in time") from error
        finally:
            endpoint.waiting.discard(interrupt)

    async def _exchange(self, request: bytes, url: str, *, final: bool) -> Upstream:
        """The answer to a request. An engine may close an idle connection just when it is used, so that is retried."""
        connection = self._pool.reusable(url)
        if connection is not None:
            try:
                return await self._answer(connection, request, url, final=final)
            except UpstreamError:
                if connection.heard:
                    raise
        return await self._answer(await self._pool.connect(url), request, url, final=final)

    async def _answer(self, connection: EngineConnection, request: bytes, url: str, *, final: bool) -> Upstream:
        try:
            connection.send(request)
            await connection.head()
            _check_head(connection)
            if connection.status in RETRIED_STATUSES and not final:
                raise UpstreamError(f"status {connection.status}", busy=connection.status == TOO_MANY)
            return Upstream(self._pool, url, connection, await connection.chunk())
        except BaseException:
            connection.close()
            raise


def _interrupt(waits: asyncio.Timeout, endpoint: Endpoint) -> Callable[[], None]:
    """What ends an attempt at once if its endpoint hangs. One that has only left the directory may still answer."""

    def interrupt() -> None:
        if endpoint.hangs and not waits.expired():
            waits.reschedule(0)

    return interrupt


def _check_head(connection: EngineConnection) -> None:
    """Raise UpstreamError for a head that no engine sends, before anything of it reaches the client."""
    if connection.status not in _STATUSES or connection.status in _REDIRECTS:
        raise UpstreamError(f"status {connection.status}")
    for name, value in connection.headers:
        if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
            raise UpstreamError("control characters in a header")


def _request(incoming: Incoming, body: bytes, endpoint: EndpointInfo) -> bytes:
    """The whole request to the engine."""
    named = _named_by_connection(incoming)
    parts = urlsplit(endpoint.url)
    target = f"{parts.path}{incoming.raw_path}".encode("latin-1")
    if incoming.query:
        target += b"?" + incoming.query
    lines = [
        b"%s %s HTTP/1.1\r\nhost: %s" % (incoming.method.encode(), target, parts.netloc.rpartition("@")[2].encode())
    ]
    lines += [name + b": " + value for name, value in incoming.headers if name not in HOP_BY_HOP and name not in named]
    if endpoint.rank is not None:
        lines.append(b"x-data-parallel-rank: %d" % endpoint.rank)
    if body or incoming.method == "POST":
        lines.append(b"content-length: %d" % len(body))
    lines.append(b"\r\n")
    return b"\r\n".join(lines) + body


def _named_by_connection(incoming: Incoming) -> frozenset[bytes]:
    """Headers that the client's `Connection` declares to be for this hop only."""
    named = incoming.header("connection")
    if named is None or named in ("keep-alive", "close"):
        return frozenset()
    return frozenset(part.strip().lower().encode("latin-1") for part in named.split(","))


async def relay(
    upstream: Upstream, added_headers: Headers, reply: Reply, watch: AnswerWatch | None, patience: "Patience"
) -> None:
    """Pass the answer on as it arrives, with `added_headers`.

    Raises UpstreamError if the engine breaks off or falls silent; the answer to the client is then left unfinished.
    """
    kept = [each for each in upstream.headers if each[0] not in _FRAMING]
    await reply.start(upstream.status, [*kept, *added_headers])
    chunk = upstream.first
    while chunk:
        if watch is not None:
            watch.add(chunk)
        if upstream.whole and (rest := upstream.ready()) is not None:
            if watch is not None and rest:
                watch.add(rest)
            await reply.end(chunk + rest if rest else chunk)
            return
        await reply.write(chunk)
        chunk = await patience.next(upstream)
    await reply.end()


class Patience:
    """How long the chunks of one answer are waited for: less once the endpoint has left the rotation or directory."""

    def __init__(self, endpoint: Endpoint, idle_s: float, left_idle_s: float) -> None:
        self._endpoint = endpoint
        self._idle_s = idle_s
        self._left_idle_s = min(idle_s, left_idle_s)

    async def next(self, upstream: Upstream) -> bytes:
        """The next chunk, or nothing at the end. Raises UpstreamError."""
        chunk = upstream.ready()
        if chunk is not None:
            return chunk
        endpoint = self._endpoint
        waits = asyncio.timeout(self._left_idle_s if endpoint.left else self._idle_s)

        def hurry() -> None:
            if not waits.expired():
                soon = asyncio.get_running_loop().time() + self._left_idle_s
                waits.reschedule(min(soon, waits.when() or soon))

        endpoint.waiting.add(hurry)
        try:
            async with waits:
                return await upstream.chunk()
        except TimeoutError as error:
            raise UpstreamError("the engine has fallen silent") from error
        finally:
            endpoint.waiting.discard(hurry)
