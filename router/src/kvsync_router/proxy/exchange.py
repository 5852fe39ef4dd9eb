"""One exchange with a client: the request that came in, and the reply that goes out.

The proxy is written against these, and not against ASGI, so that the way in which bytes reach it can change.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from kvsync_indexer.serving import Receive, Scope, Send
from kvsync_router.errors import ClientGoneError, RequestRefusedError

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]


@dataclass(slots=True)
class Incoming:
    """A request from a client. The names of headers are in lower case."""

    method: str
    path: str
    """The path without escapes, by which a request is recognised."""
    raw_path: str
    """The path as it came, which is passed on."""
    query: bytes
    headers: Headers
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The value of a header, by its lower-case name. Several headers of one name are joined, as HTTP allows."""
        wanted = name.encode("latin-1")
        values = [value for given, value in self.headers if given == wanted]
        return b", ".join(values).decode("latin-1") if values else None


class Reply:
    """The answer to one request, sent through ASGI."""

    __slots__ = ("_send", "begun", "status")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.status = 0
        """Status that the client was sent; 0 before that."""

    def start(self, status: int, headers: Headers) -> Awaitable[None]:
        """Send the head."""
        self.begun, self.status = True, status
        return self._send({"type": "http.response.start", "status": status, "headers": headers})

    def write(self, chunk: bytes) -> Awaitable[None]:
        """Send a part of the body, and wait while the client reads too slowly."""
        return self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    def end(self, chunk: bytes = b"") -> Awaitable[None]:
        """Send the last part of the body. An answer that is not ended is cut."""
        return self._send({"type": "http.response.body", "body": chunk, "more_body": False})

    async def refuse(self, error: RequestRefusedError, headers: Headers = ()) -> None:
        """Answer with an OpenAI-shaped error."""
        body = msgspec.json.encode(error.body())
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
        if error.retry_after_s is not None:
            head.append((b"retry-after", str(error.retry_after_s).encode()))
        await self.start(error.status, head)
        await self.end(body)


def incoming(scope: Scope) -> Incoming:
    """The head of a request."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return Incoming(scope["method"], scope["path"], raw.decode("latin-1"), scope["query_string"], scope["headers"])


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole body. Raises RequestRefusedError if it is longer than `limit`, ClientGoneError if it does not end."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError("the client left before its request was complete")
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise RequestRefusedError(413, f"the body is larger than {limit} bytes", "invalid_request_error")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def client_gone(receive: Receive) -> None:
    """Return when the client has left."""
    message = await receive()
    while message["type"] != "http.disconnect":
        message = await receive()
