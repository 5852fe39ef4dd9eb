"""What an engine's answer says of its cache, read from the bytes that pass by.

The relay hands every chunk over after sending it on; nothing is looked at before the answer is whole. Memory is
bounded: of a stream only the end is kept (the usage is in its last event, with `stream_options.include_usage`), and of
an answer in one piece nothing is kept once it is longer than the bound.
"""

from collections import deque

import msgspec

MAX_ANSWER_BYTES = 1 << 18
"""A longer answer in one piece (log probabilities, say) is passed on and not read."""
STREAM_TAIL_BYTES = 1 << 14
"""The usage event, `[DONE]`, and a little of what came before."""
_DATA = b"data:"


class UsageUnreadableError(Exception):
    """The answer cannot be read: too long, or not JSON."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one answered prompt."""

    prompt_tokens: int
    cached_tokens: int | None
    """None: not said. vLLM says nothing where it found nothing, as does an engine that never says."""


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _UsageField(msgspec.Struct):
    prompt_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Answer(msgspec.Struct):
    usage: _UsageField | None = None


_DECODER = msgspec.json.Decoder(_Answer)


class UsageReader:
    """Reads one answer. `add` every chunk, then ask `usage` once."""

    def __init__(self, content_type: str) -> None:
        self._stream = content_type.startswith("text/event-stream")
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._over = False

    def add(self, chunk: bytes) -> None:
        """A chunk went by."""
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
        """The usage, None where the answer has none. Raises UsageUnreadableError."""
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
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageUnreadableError(str(error)) from None
    if field is None:
        return None
    details = field.prompt_tokens_details
    return Usage(field.prompt_tokens, None if details is None else details.cached_tokens)
