"""Requests with deterministic prompts."""

from typing import Any

from kvsync_mockpod.engine import Request
from kvsync_testkit.scheduler.executors import text_number

_BASE = 20_000
_SPAN = 100_000


def prompt_tokens(stream: int, count: int, first: int = 0) -> list[int]:
    """The tokens `first` to `first + count - 1` of a stream; prompts of different streams differ in every block."""
    return [_BASE + (stream * 7919 + i * 104_729) % _SPAN for i in range(first, first + count)]


def make_request(
    request_id: str,
    n: int = 20,
    max_tokens: int = 4,
    stream: int | None = None,
    **fields: Any,  # noqa: ANN401 - the fields of `Request`
) -> Request:
    """A request whose prompt is the first `n` tokens of a stream, by default one of its own.

    Args:
        request_id: Its id.
        n: Length of the prompt in tokens.
        max_tokens: Length of the output, unless it ends by a stop token.
        stream: Requests of one stream share their prompts' beginning.
        **fields: Further fields of `Request`.
    """
    prompt = prompt_tokens(text_number(request_id) if stream is None else stream, n)
    return Request(request_id, prompt, max_tokens, **fields)
