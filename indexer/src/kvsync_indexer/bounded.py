"""Readers with a limit: of bytes, and of the time in which all of them must have come.

Every other process may be broken or hostile, and what it sends must not cost this one more memory or time than is
written here. Whoever reads the body of a request or of an answer reads it through this module.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from kvsync_indexer.errors import OversizeError, RequestError


@dataclass(frozen=True, slots=True)
class Bound:
    """The longest accepted body, and the seconds in which it must have arrived, counted from the request on."""

    most_bytes: int
    within_s: float


MATCH_REQUEST: Final = Bound(64 << 20, 30.0)
"""About ten million token ids."""
AUDIT_REQUEST: Final = Bound(1 << 20, 10.0)
"""Names of publishers: 4,096 names of 253 characters."""
PREDICTION_REPORT: Final = Bound(64 << 10, 10.0)
ENGINE_DIGEST: Final = Bound(4 << 20, 30.0)
ENGINE_METRICS: Final = Bound(16 << 20, 30.0)
ENGINE_BLOCKS: Final = Bound(256 << 20, 60.0)
"""128 bytes per line for 2 million blocks."""
ENGINE_TOKENS: Final = Bound(64 << 20, 5.0)
"""About ten million tokens."""
ENGINE_VERSION: Final = Bound(64 << 10, 5.0)

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@contextlib.asynccontextmanager
async def fetched(
    session: aiohttp.ClientSession, url: str, bound: Bound, token: str | None = None
) -> AsyncIterator[tuple[aiohttp.ClientResponse, bytes]]:
    """Get `url`, with a bearer token if one is given, and yield the response with its body.

    Redirects are not followed: an engine must not send the index to other addresses.
    Raises OversizeError, TimeoutError and what aiohttp raises.
    """
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    async with asyncio.timeout(bound.within_s), session.get(url, headers=headers, allow_redirects=False) as response:
        yield response, await read_answer(response, bound)


async def read_answer(response: aiohttp.ClientResponse, bound: Bound) -> bytes:
    """Return the body of an answer; the caller bounds the time. Raises OversizeError."""
    if (response.content_length or 0) > bound.most_bytes:
        raise OversizeError(_too_long(response.content_length, bound))
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > bound.most_bytes:
            response.close()
            raise OversizeError(_too_long(None, bound))
        parts.append(part)
    return b"".join(parts)


async def read_request(receive: Receive, bound: Bound) -> bytes:
    """Return the body of an ASGI request. Raises RequestError with 413 or 408."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(bound.within_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise RequestError(400, "the connection closed before the body was complete")
                part = message.get("body", b"")
                size += len(part)
                if size > bound.most_bytes:
                    raise RequestError(413, f"the body is longer than {bound.most_bytes} bytes")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {bound.within_s:g} s") from None


def _too_long(size: int | None, bound: Bound) -> str:
    return f"{'more' if size is None else size} bytes, which is over the limit of {bound.most_bytes} bytes"
