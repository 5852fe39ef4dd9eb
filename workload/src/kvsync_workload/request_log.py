"""Converts a log of OpenAI requests into a trace: lengths, arrival times and block ids, no text.

Each line is a JSON object with a time (`timestamp`, `created`, `created_at` or `time`: seconds, milliseconds or ISO
8601, UTC unless it says otherwise) and a request, which stands under `request`, under `body` (as in batch files), or is
the line itself: `prompt` (text or token ids) or `messages`. The output length is `response.usage.completion_tokens` or
`usage.completion_tokens` where that was logged, otherwise the limit that the request sets.

Block ids stand for whole prefixes, separately for each model and cache salt. Servers often log a request when it ends,
so lines are put in order of time.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from kvsync_workload.errors import RequestLogError
from kvsync_workload.trace import TRACE_BLOCK_TOKENS

Encode = Callable[[str], Sequence[int]]
"""A tokenizer: text to token ids."""

DEFAULT_OUTPUT_TOKENS = 16
MAX_TOKEN_ID = 2**32 - 1
_MILLISECONDS_FROM = 1e11
"""A time of this many seconds lies after the year 5000, so such a number is taken as milliseconds."""


def convert_log(path: Path, encode: Encode) -> list[str]:
    """The lines of the trace, ordered by time from 0. Raises RequestLogError naming the file and the line."""
    converter = _Converter(encode)
    try:
        with path.open("rb") as file:
            entries = list(_convert(path, file, converter))
    except OSError as error:
        raise RequestLogError(f"log {path}: {error.strerror}") from None
    entries.sort(key=lambda entry: entry[0])
    return [json.dumps({"timestamp": round(at_ms - entries[0][0], 3), **fields}) for at_ms, fields in entries]


def _convert(path: Path, lines: Iterator[bytes], converter: "_Converter") -> Iterator[tuple[float, dict[str, object]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = msgspec.json.decode(line)
            if not isinstance(record, dict):
                raise ValueError("a JSON object is needed")
            yield _time_ms(record), converter.convert(record)
        except (msgspec.MsgspecError, ValueError, OverflowError) as error:
            raise RequestLogError(f"{path}:{number}: {error}") from None


class _Converter:
    """Knows the prefixes of all requests so far; ids are small numbers in order of first appearance."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._ids: dict[tuple[int, bytes], int] = {}
        self._roots: dict[tuple[str, str], int] = {}

    def convert(self, record: Mapping[str, Any]) -> dict[str, object]:
        """The fields of a trace line, but for its time. ValueError says what is missing."""
        request = _request(record)
        tokens = self._tokens(request)
        if not tokens:
            raise ValueError("the prompt is empty")
        return {
            "input_length": len(tokens),
            "output_length": _output_tokens(record, request),
            "hash_ids": self._chain(request, tokens),
        }

    def _tokens(self, request: Mapping[str, Any]) -> Sequence[int]:
        prompt = request.get("prompt")
        if isinstance(prompt, str):
            return self._encode(prompt)
        if isinstance(prompt, list) and all(isinstance(token, int) for token in prompt):
            if prompt and not 0 <= min(prompt) <= max(prompt) <= MAX_TOKEN_ID:
                raise ValueError(f"prompt: token ids must be from 0 to {MAX_TOKEN_ID}")
            return prompt
        if isinstance(request.get("messages"), list):
            return self._encode("".join(_message_text(message) for message in request["messages"]))
        raise ValueError("prompt: text, token ids or messages are needed")

    def _chain(self, request: Mapping[str, Any], tokens: Sequence[int]) -> list[int]:
        context = (str(request.get("model")), str(request.get("cache_salt")))
        node = -1 - self._roots.setdefault(context, len(self._roots))
        chain: list[int] = []
        for start in range(0, len(tokens), TRACE_BLOCK_TOKENS):
            block = msgspec.msgpack.encode(tokens[start : start + TRACE_BLOCK_TOKENS])
            node = self._ids.setdefault((node, block), len(self._ids))
            chain.append(node)
        return chain


def _request(record: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("request", "body"):
        if isinstance(record.get(key), dict):
            found: Mapping[str, Any] = record[key]
            return found
    return record


def _time_ms(record: Mapping[str, Any]) -> float:
    for key in ("timestamp", "created", "created_at", "time"):
        value = record.get(key)
        if isinstance(value, str):
            try:
                at = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{key} = {value!r}: a number or an ISO 8601 time is needed") from None
            return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000
        if isinstance(value, int | float):
            return float(value) if value >= _MILLISECONDS_FROM else value * 1000.0
    raise ValueError("timestamp: is missing")


def _output_tokens(record: Mapping[str, Any], request: Mapping[str, Any]) -> int:
    response = record.get("response")
    for holder in (response, record):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            return max(int(usage["completion_tokens"]), 0)
    for key in ("max_completion_tokens", "max_tokens"):
        if isinstance(request.get(key), int):
            return max(int(request[key]), 0)
    return DEFAULT_OUTPUT_TOKENS


def _message_text(message: object) -> str:
    if not isinstance(message, dict):
        raise ValueError("messages: objects with role and content are needed")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return f"<|im_start|>{message.get('role', 'user')}\n{content or ''}<|im_end|>\n"
