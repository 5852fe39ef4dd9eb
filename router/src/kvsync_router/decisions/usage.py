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
    """The usage of any of the APIs: `prompt_tokens` in a completion or chat, `input_tokens` elsewhere."""

    prompt_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    input_tokens: int | None = None
    input_tokens_details: _Details | None = None
    cache_read_input_tokens: int | None = None
    """Of `/v1/messages`, where it is not part of `input_tokens`."""


class _Response(msgspec.Struct):
    usage: _UsageField | None = None


class _Answer(msgspec.Struct):
    usage: _UsageField | None = None
    response: _Response | None = None
    """In the last event of a streamed `/v1/responses`."""


_DECODER = msgspec.json.Decoder(_Answer)
_NAMES = (b'"prompt_tokens"', b'"input_tokens"')


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
            if line.startswith(_DATA) and any(name in line for name in _NAMES):
                return _usage(line[len(_DATA) :])
        return None


def _usage(data: bytes) -> Usage | None:
    try:
        answer = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageUnreadableError(str(error)) from None
    field = answer.usage or (answer.response.usage if answer.response is not None else None)
    if field is None:
        return None
    if field.input_tokens is None:
        details = field.prompt_tokens_details
        return Usage(field.prompt_tokens or 0, None if details is None else details.cached_tokens)
    if field.cache_read_input_tokens is not None:
        return Usage(field.input_tokens + field.cache_read_input_tokens, field.cache_read_input_tokens)
    details = field.input_tokens_details
    return Usage(field.input_tokens, None if details is None else details.cached_tokens)
