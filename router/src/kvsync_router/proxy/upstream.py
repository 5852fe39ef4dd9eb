"""One attempt at an endpoint: the request is sent, and the answer passed on as it arrives."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import aiohttp

from kvsync_router.decisions.endpoints import Endpoint, EndpointInfo
from kvsync_router.decisions.predictions import AnswerWatch
from kvsync_router.errors import UpstreamError
from kvsync_router.proxy.exchange import Incoming, Reply

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses after which another endpoint is tried: its queue is full, it is draining, or it is a proxy that failed."""
TOO_MANY = 429
FAILED_STATUSES = RETRIED_STATUSES - {TOO_MANY}
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection trailer transfer-encoding"
    b" te upgrade host content-length expect".split()  # codespell:ignore te
)


_STATUSES: Final = range(200, 600)
_REDIRECTS: Final = range(300, 400)
_BAD_NAME: Final = re.compile(rb'[\x00-\x1f\x7f()<>@,;:\[\]={} \t\\"]')
_BAD_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What RFC 9110 allows in no header; the router's HTTP server would refuse to send it."""


@dataclass(slots=True)
class Upstream:
    """An answer that has begun: its status, its headers and its first chunk have arrived."""

    response: aiohttp.ClientResponse
    chunks: AsyncIterator[bytes]
    first: bytes

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.response.status

    @property
    def content_type(self) -> str:
        """The content type of the answer, or an empty string."""
        return self.response.headers.get("content-type", "")

    def close(self) -> None:
        """End the exchange with the engine. Its connection is kept if the answer is complete."""
        self.response.close()


class UpstreamClient:
    """Sends requests to endpoints."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession]) -> None:
        self._session = session

    async def begin(
        self, incoming: Incoming, body: bytes, endpoint: Endpoint, *, timeout_s: float, final: bool
    ) -> Upstream:
        """Send the request and wait for the first byte of the answer's body. Raises UpstreamError.

        An answer with a status in `RETRIED_STATUSES` is an error too, unless this is the `final` attempt. The attempt
        ends early if the endpoint turns out to hang.
        """
        response = None
        waits = asyncio.timeout(timeout_s)
        interrupt = _interrupt(waits, endpoint)
        endpoint.waiting.add(interrupt)
        try:
            async with waits:
                response = await self._session().request(
                    incoming.method,
                    _url(incoming, endpoint.info),
                    data=body or None,
                    headers=_headers(incoming, endpoint.info),
                    allow_redirects=False,
                )
                _check_head(response)
                if response.status in RETRIED_STATUSES and not final:
                    raise UpstreamError(f"status {response.status}", busy=response.status == TOO_MANY)
                chunks = response.content.iter_any()
                first = await anext(chunks, b"")
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise UpstreamError("no connection in time", down=True, cut_off=True) from error
            if isinstance(error, aiohttp.ClientConnectorError):
                raise UpstreamError("connection refused", down=True) from error
            if isinstance(error, TimeoutError):
                raise UpstreamError("the endpoint hangs" if endpoint.hangs else "no answer in time") from error
            if isinstance(error, aiohttp.ClientError | OSError):
                raise UpstreamError(type(error).__name__) from error
            raise
        finally:
            endpoint.waiting.discard(interrupt)
        return Upstream(response, chunks, first)


def _interrupt(waits: asyncio.Timeout, endpoint: Endpoint) -> Callable[[], None]:
    """What ends an attempt at once if its endpoint hangs. One that has only left the directory may still answer."""

    def interrupt() -> None:
        if endpoint.hangs and not waits.expired():
            waits.reschedule(0)

    return interrupt


def _check_head(response: aiohttp.ClientResponse) -> None:
    """Raise UpstreamError for a head that no engine sends, before anything of it reaches the client."""
    if response.status not in _STATUSES or response.status in _REDIRECTS:
        raise UpstreamError(f"status {response.status}")
    for name, value in response.raw_headers:
        if _BAD_NAME.search(name) or _BAD_VALUE.search(value):
            raise UpstreamError("control characters in a header")


def _url(incoming: Incoming, endpoint: EndpointInfo) -> str:
    url = endpoint.url + incoming.path
    return f"{url}?{incoming.query.decode('latin-1')}" if incoming.query else url


def _headers(incoming: Incoming, endpoint: EndpointInfo) -> list[tuple[str, str]]:
    named = _named_by_connection(incoming)
    headers = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in incoming.headers
        if name not in HOP_BY_HOP and name not in named
    ]
    if endpoint.rank is not None:
        headers.append(("X-data-parallel-rank", str(endpoint.rank)))
    return headers


def _named_by_connection(incoming: Incoming) -> frozenset[bytes]:
    """Headers that the client's `Connection` declares to be for this hop only."""
    named = incoming.header("connection")
    if named is None or named in ("keep-alive", "close"):
        return frozenset()
    return frozenset(part.strip().lower().encode("latin-1") for part in named.split(","))


async def relay(
    upstream: Upstream,
    added_headers: Sequence[tuple[bytes, bytes]],
    reply: Reply,
    watch: AnswerWatch | None,
    patience: "Patience",
) -> None:
    """Pass the answer on as it arrives, with `added_headers`.

    Raises UpstreamError if the engine breaks off or falls silent; the answer to the client is then left unfinished.
    """
    headers = [(name.lower(), value) for name, value in upstream.response.raw_headers]
    kept = [(name, value) for name, value in headers if name not in HOP_BY_HOP or name == b"content-length"]
    await reply.start(upstream.status, [*kept, *added_headers])
    chunk = upstream.first
    try:
        while chunk:
            await reply.write(chunk)
            if watch is not None:
                watch.add(chunk)
            chunk = await patience.next(upstream.chunks)
    except TimeoutError as error:
        raise UpstreamError("the engine has fallen silent") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(type(error).__name__) from error
    await reply.end()


class Patience:
    """How long the chunks of one answer are waited for: less once the endpoint has left the rotation or directory."""

    def __init__(self, endpoint: Endpoint, idle_s: float, left_idle_s: float) -> None:
        self._endpoint = endpoint
        self._idle_s = idle_s
        self._left_idle_s = min(idle_s, left_idle_s)

    async def next(self, chunks: AsyncIterator[bytes]) -> bytes:
        """The next chunk, or nothing at the end. Raises TimeoutError."""
        endpoint = self._endpoint
        waits = asyncio.timeout(self._left_idle_s if endpoint.left else self._idle_s)

        def hurry() -> None:
            if not waits.expired():
                soon = asyncio.get_running_loop().time() + self._left_idle_s
                waits.reschedule(min(soon, waits.when() or soon))

        endpoint.waiting.add(hurry)
        try:
            async with waits:
                return await anext(chunks, b"")
        finally:
            endpoint.waiting.discard(hurry)
