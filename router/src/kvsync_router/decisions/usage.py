"""How many prompt tokens an engine found cached, read from the bytes of its answer as they pass.

Nothing is decoded before the answer is complete. Memory is bounded. Of a stream only the end is kept, because its usage
is in the last event (with `stream_options.include_usage`). Any other answer is dropped once it exceeds the bound.
"""

from collections import deque

import msgspec

from kvsync_router.errors import UsageUnreadableError

MAX_ANSWER_BYTES = 1 << 18
"""A longer answer that is no stream, for example one with log probabilities, is not read."""
STREAM_TAIL_BYTES = 1 << 14
"""Enough for the usage event, `[DONE]` and a little of what precedes them."""
_DATA = b"data:"


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answered prompt."""

    prompt_tokens: int
    cached_tokens: int | None
    """None if the answer does not tell. vLLM leaves it out if nothing was cached, or if it was not told to give it."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _UsageField(msgspec.Struct):
    prompt_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _UsageField | None = None


_DECODER = msgspec.json.Decoder(_Answer)


class UsageReader:
    """Reads one answer: `add` every chunk, then call `usage` once."""

    def __init__(self, content_type: str) -> None:
        self._stream = content_type.startswith("text/event-stream")
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._over = False

    def add(self, chunk: bytes) -> None:
        """Take one chunk."""
        if self._over:
            return
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        if self._stream:
            while self._bytes - len(self._chunks[0]) >= STREAM_TAIL_BYTES:
                self._bytes -= len(self._chunks.popleft())
        elif self._bytes > MAX_ANSWER_BYTES:
            self._over = True
            self._chunks.clear()

    def usage(self) -> Usage | None:
        """The usage, or None if the answer has none. Raises UsageUnreadableError."""
        if self._over:
            raise UsageUnreadableError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        data = b"".join(self._chunks)
        self._chunks.clear()
        if not self._stream:
            return _usage(data)
        for line in reversed(data.splitlines()):
            if line.startswith(_DATA) and b'"prompt_tokens"' in line:
                return _usage(line[len(_DATA) :])
        return None


def _usage(data: bytes) -> Usage | None:
    try:
        field = _DECODER.decode(data).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageUnreadableError(str(error)) from None
    if field is None:
        return None
    details = field.prompt_tokens_details
    return Usage(field.prompt_tokens, None if details is None else details.cached_tokens)
