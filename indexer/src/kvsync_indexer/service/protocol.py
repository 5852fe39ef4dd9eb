"""uvicorn's HTTP protocol, which answers `POST /v1/match` as soon as its body is there.

An ASGI call costs a task, an event, two awaited sends and a scope: more than the match itself. So a match whose answer
needs no waiting is written in the parser's own callback. Everything else goes the usual way, and so does a match that
`quick` declines (the request is then shown to uvicorn as if it had just come): errors, text and slow readers behave
the same whichever way they were tried first.
"""

from collections.abc import Callable
from typing import Final

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_log = structlog.get_logger("kvsync_indexer.service")

PATH: Final = b"/v1/match"
MOST_BYTES: Final = 1 << 20
"""A longer body goes the usual way, with its flow control."""
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_LAST_HEAD: Final = _HEAD[:-2] + b"connection: close\r\n\r\n"


def match_protocol(quick: Callable[[bytes], bytes | None]) -> type[HttpToolsProtocol]:
    """A protocol class whose connections ask `quick` first."""

    class Protocol(MatchProtocol):
        answer = staticmethod(quick)

    return Protocol


class MatchProtocol(HttpToolsProtocol):
    """One connection."""

    answer: Callable[[bytes], bytes | None]
    _parts: list[bytes] | None = None
    """The body of a match so far; None: the request is uvicorn's."""
    _size = 0
    _ending = False

    def on_message_begin(self) -> None:
        """A request begins. Its scope is made when uvicorn is to have it."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def _make_scope(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)

    def on_headers_complete(self) -> None:
        """Is it ours?"""
        idle = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        if (
            idle
            and self.url == PATH
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
        ):
            self._parts, self._size = [], 0
        else:
            self._make_scope()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        if self._parts is None:
            super().on_body(body)
            return
        self._parts.append(body)
        self._size += len(body)
        if self._size > MOST_BYTES:
            self._hand_over()

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._parts is None:
            super().on_message_complete()
            return
        try:
            data = self.answer(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        except Exception:  # noqa: BLE001  the usual way answers 500, and tells
            _log.exception("quick_match_failed")
            data = None
        if data is None:
            self._hand_over()
            super().on_message_complete()
            return
        self._parts = None
        if self.parser.should_keep_alive() and not self._ending:
            self.transport.write(_HEAD % len(data) + data)
            self.on_response_complete()
        else:
            self.transport.write(_LAST_HEAD % len(data) + data)
            self.on_response_complete()
            self.transport.close()

    def _hand_over(self) -> None:
        """Show uvicorn what has come of the request."""
        parts, self._parts = self._parts, None
        self._make_scope()
        super().on_headers_complete()
        if parts:
            super().on_body(b"".join(parts))

    def shutdown(self) -> None:
        """A request that has begun is answered first."""
        if self._parts is None:
            super().shutdown()
        else:
            self._ending = True
