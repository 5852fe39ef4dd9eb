"""uvicorn's HTTP protocol, extended to answer `POST /v1/match` as soon as its body is complete.

An ASGI call costs a task, an event, two awaited sends and a scope, which is more than the match itself. A match that
can be answered without waiting is therefore answered in the callback of the HTTP parser. Every other request goes
through uvicorn, and so does a match that `quick` declines: uvicorn then sees it as if it had just arrived, so that
errors, text and slow readers behave the same in both cases.
"""

from collections.abc import Callable
from typing import Final

import structlog

from kvsync_indexer.descriptors import ReservingProtocol

_log = structlog.get_logger("kvsync_indexer.service")

PATH: Final = b"/v1/match"
MOST_BYTES: Final = 1 << 20
"""A longer body goes through uvicorn, which has flow control."""
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_LAST_HEAD: Final = _HEAD[:-2] + b"connection: close\r\n\r\n"


def match_protocol(
    quick: Callable[[bytes], bytes | None], admits: Callable[[bytes | None], bool] | None = None
) -> type[ReservingProtocol]:
    """A protocol class whose connections ask `quick` for each match first.

    `admits` says whether a match with this `Authorization` header may be answered; None admits all.
    """

    class Protocol(MatchProtocol):
        answer = staticmethod(quick)

        def admitted(self) -> bool:
            return admits is None or admits(dict(self.headers).get(b"authorization"))

    return Protocol


class MatchProtocol(ReservingProtocol):
    """One connection."""

    answer: Callable[[bytes], bytes | None]
    _parts: list[bytes] | None = None
    """The parts of a match's body so far; None while uvicorn handles the request."""
    _size = 0
    _ending = False

    def on_message_begin(self) -> None:
        """A request begins. Its ASGI scope is made only if uvicorn handles it."""
        self.head_begins()
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def admitted(self) -> bool:
        """Whether the client may ask for matches."""
        return True

    def _make_scope(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)

    def on_headers_complete(self) -> None:
        """Decide whether the request is a match that may be answered here."""
        self.head_ends()
        idle = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        if (
            idle
            and self.url == PATH
            and self.parser.get_method() == b"POST"
            and self.parser.get_http_version() == "1.1"
            and not self.expect_100_continue
            and not self.parser.should_upgrade()
            and not self.flow.write_paused
            and not self.reserved
            and self.certified
            and self.admitted()
        ):
            self._parts, self._size = [], 0
        else:
            self._make_scope()
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body has arrived."""
        if self._parts is None:
            super().on_body(body)
            return
        self._parts.append(body)
        self._size += len(body)
        if self._size > MOST_BYTES:
            self._hand_over()

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self._parts is None:
            super().on_message_complete()
            return
        try:
            data = self.answer(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        except Exception:  # noqa: BLE001  uvicorn then answers 500 and logs it
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
        """Give uvicorn what has arrived of the request."""
        parts, self._parts = self._parts, None
        self._make_scope()
        super().on_headers_complete()
        if parts:
            super().on_body(b"".join(parts))

    def shutdown(self) -> None:
        """Close the connection, after the answer to a match that has begun."""
        if self._parts is None:
            super().shutdown()
        else:
            self._ending = True
