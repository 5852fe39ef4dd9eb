"""One attempt at an endpoint: the request is sent, and the answer passed on as it arrives."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import aiohttp

from kvsync_indexer.serving import Scope, Send
from kvsync_router.decisions.endpoints import EndpointInfo
from kvsync_router.decisions.predictions import AnswerWatch
from kvsync_router.errors import UpstreamError

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
"""Statuses after which another endpoint is tried: its queue is full, it is draining, or it is a proxy that failed."""
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection trailer transfer-encoding"
    b" te upgrade host content-length expect".split()  # codespell:ignore te
)


@dataclass(slots=True)
class Upstream:
    """An answer that has begun: its status, its headers and its first chunk have arrived."""

    response: aiohttp.ClientResponse
    chunks: AsyncIterator[bytes]
    first: bytes

    @property
    def content_type(self) -> str:
        """The content type of the answer, or an empty string."""
        return self.response.headers.get("content-type", "")


class UpstreamClient:
    """Sends requests to endpoints."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession], first_byte_timeout_s: float) -> None:
        self._session = session
        self._first_byte_timeout_s = first_byte_timeout_s

    async def begin(self, scope: Scope, body: bytes, endpoint: EndpointInfo, *, final: bool) -> Upstream:
        """Send the request and wait for the first byte of the answer's body. Raises UpstreamError.

        An answer with a status in `RETRIED_STATUSES` is an error too, unless this is the `final` attempt.
        """
        response = None
        try:
            async with asyncio.timeout(self._first_byte_timeout_s):
                response = await self._session().post(
                    _url(scope, endpoint), data=body, headers=_headers(scope, endpoint), allow_redirects=False
                )
                if response.status in RETRIED_STATUSES and not final:
                    raise UpstreamError(f"status {response.status}")
                chunks = response.content.iter_any()
                first = await anext(chunks, b"")
        except BaseException as error:
            if response is not None:
                response.close()
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                raise UpstreamError("connection refused", down=True) from error
            if isinstance(error, TimeoutError | aiohttp.ClientError | OSError):
                raise UpstreamError(type(error).__name__) from error
            raise
        return Upstream(response, chunks, first)


def _url(scope: Scope, endpoint: EndpointInfo) -> str:
    url: str = endpoint.url + scope["path"]
    if scope["query_string"]:
        url += "?" + scope["query_string"].decode("latin-1")
    return url


def _headers(scope: Scope, endpoint: EndpointInfo) -> list[tuple[str, str]]:
    headers = [
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"] if name not in HOP_BY_HOP
    ]
    if endpoint.rank is not None:
        headers.append(("X-data-parallel-rank", str(endpoint.rank)))
    return headers


async def relay(
    upstream: Upstream, added_headers: Sequence[tuple[bytes, bytes]], send: Send, watch: AnswerWatch | None
) -> None:
    """Pass the answer on as it arrives, with `added_headers`.

    Raises UpstreamError if the engine breaks off; the answer to the client is then left unfinished.
    """
    headers = [(name.lower(), value) for name, value in upstream.response.raw_headers]
    kept = [(name, value) for name, value in headers if name not in HOP_BY_HOP or name == b"content-length"]
    await send({"type": "http.response.start", "status": upstream.response.status, "headers": [*kept, *added_headers]})
    chunk = upstream.first
    try:
        while chunk:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if watch is not None:
                watch.add(chunk)
            chunk = await anext(upstream.chunks, b"")
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(type(error).__name__) from error
    await send({"type": "http.response.body", "body": b"", "more_body": False})
