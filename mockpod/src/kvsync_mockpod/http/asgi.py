"""A thin layer between ASGI and the handlers: requests, responses and streams.

No framework is used, because a streamed token is on the hot path and the whole surface is a table of exact paths.
Bodies are limited while they are read.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from kvsync_mockpod.errors import MockPodError
from kvsync_mockpod.http.errors import HttpError, bad_request, from_decode_error

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
JSON_TYPE = (b"content-type", b"application/json")


class ClientDisconnectedError(MockPodError):
    """The client closed the connection before the response was complete."""


@dataclass(slots=True)
class Response:
    """A complete response."""

    body: bytes = b""
    status: int = 200
    content_type: tuple[bytes, bytes] = JSON_TYPE
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    async def write(self, send: Send) -> None:
        """Send the head and the body."""
        headers = [self.content_type, (b"content-length", str(len(self.body)).encode()), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def json_response(value: object, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Response:
    """A response with `value` as JSON."""
    return Response(_encode(value), status, JSON_TYPE, list(headers))


def text_response(text: str, status: int = 200, content_type: bytes = b"text/plain; charset=utf-8") -> Response:
    """A response with unchanged text."""
    return Response(text.encode(), status, (b"content-type", content_type))


class Request:
    """One HTTP request. The body is read when it is asked for; everything else is available at once."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send, max_body_bytes: int) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.path_parameter = ""
        self.slow_s = 0.0
        """Delay in seconds before tokens are taken (a fault)."""
        self._limit = max_body_bytes

    @cached_property
    def headers(self) -> dict[bytes, bytes]:
        """Headers by lower-case name; the last of several wins."""
        return dict(self.scope["headers"])

    def header(self, name: bytes) -> str | None:
        """One header as text, or None."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    @cached_property
    def query(self) -> dict[str, str]:
        """Query parameters; the last of several wins. Raises `HttpError` if there are more than 100."""
        try:
            pairs = parse_qsl(self.scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=100)
        except ValueError:
            raise bad_request("the query string has more than 100 fields") from None
        return dict(pairs)

    def query_flag(self, name: str, default: bool = False) -> bool:
        """A boolean query parameter: true/false, 1/0, yes/no or on/off. Raises `HttpError` for anything else."""
        value = self.query.get(name)
        if value is None:
            return default
        lowered = value.lower()
        if lowered in ("true", "1", "yes", "on", "t", "y"):
            return True
        if lowered in ("false", "0", "no", "off", "f", "n"):
            return False
        raise bad_request(f"{name}: {value[:80]!r} is not true or false", name)

    def query_int(self, name: str, default: int, low: int, high: int) -> int:
        """An integer query parameter within [low, high]. Raises `HttpError`."""
        value = self.query.get(name)
        if value is None:
            return default
        if (
            not (value.isascii() and value.removeprefix("-").isdigit())
            or len(value) > 20
            or not low <= int(value) <= high
        ):
            raise bad_request(f"{name}: {value[:80]!r} is not an integer from {low} to {high}", name)
        return int(value)

    async def body(self) -> bytes:
        """The whole body. Raises `HttpError` 413 above the limit, `ClientDisconnectedError`."""
        declared = self.headers.get(b"content-length")
        if declared is not None and int(declared) > self._limit:
            raise self._too_large()
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            if len(body) > self._limit:
                raise self._too_large()
            return body
        chunks = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnectedError
            chunks += message.get("body", b"")
            if len(chunks) > self._limit:
                raise self._too_large()
            if not message.get("more_body", False):
                return bytes(chunks)
            message = await self.receive()

    def cut_off(self) -> None:
        """Close the connection without waiting for the client, through the transport to which `receive` is bound."""
        transport = getattr(getattr(self.receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is larger than {self._limit} bytes", headers=((b"connection", b"close"),))

    async def decode(self, decoder: "msgspec.json.Decoder[T]") -> T:
        """Decode the body. Raises `HttpError` 400, which names the invalid field, and 413."""
        body = await self.body()
        try:
            return decoder.decode(body)
        except msgspec.DecodeError as error:
            raise from_decode_error(error) from None
        except (UnicodeDecodeError, RecursionError):
            raise bad_request("the body is not JSON text") from None
