"""From a log of OpenAI requests to a trace: lengths, arrival times and block ids, no text.

A line is a JSON object with a time (`timestamp` or `created`: seconds, milliseconds or ISO 8601) and a request, under
`request`, under `body` (as in batch files), or the line itself: `prompt` (text or token ids) or `messages`. Output
length is `response.usage.completion_tokens` or `usage.completion_tokens` where logged, else the request's limit.
Text is tokenized as the mock engine does it; ids chain over whole prefixes, per model and cache salt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from kvsync.errors import TraceError
from kvsync.load.trace import TRACE_BLOCK_TOKENS
from kvsync_mockpod.text import Tokenizer

DEFAULT_OUTPUT_TOKENS = 16
_MILLISECONDS_FROM = 1e11
"""A number of seconds this large would be after the year 5000: it is milliseconds."""


class Converter:
    """Turns log lines into trace lines; ids are small numbers in order of appearance."""

    def __init__(self) -> None:
        self._tokenizer = Tokenizer()
        self._ids: dict[tuple[int, bytes], int] = {}
        self._roots: dict[tuple[str, str], int] = {}
        self._start_ms: float | None = None

    def convert(self, record: Mapping[str, Any]) -> dict[str, object]:
        """One trace line; ValueError says what is missing."""
        request = _request(record)
        tokens = self._tokens(request)
        if not tokens:
            raise ValueError("the prompt is empty")
        at_ms = _time_ms(record)
        if self._start_ms is None:
            self._start_ms = at_ms
        return {
            "timestamp": round(max(at_ms - self._start_ms, 0.0), 3),
            "input_length": len(tokens),
            "output_length": _output_tokens(record, request),
            "hash_ids": self._chain(request, tokens),
        }

    def _tokens(self, request: Mapping[str, Any]) -> Sequence[int]:
        prompt = request.get("prompt")
        if isinstance(prompt, str):
            return self._tokenizer.encode(prompt)
        if isinstance(prompt, list) and all(isinstance(token, int) for token in prompt):
            return prompt
        if isinstance(request.get("messages"), list):
            return self._tokenizer.encode("".join(_message_text(message) for message in request["messages"]))
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


def convert_log(path: Path) -> Iterator[str]:
    """Trace lines of a log file; TraceError names file, line and what is wrong."""
    converter = Converter()
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _convert_line(converter, path, number, line)
    except OSError as error:
        raise TraceError(f"log {path}: {error.strerror}") from None


def _convert_line(converter: Converter, path: Path, number: int, line: bytes) -> str:
    try:
        record = msgspec.json.decode(line)
        if not isinstance(record, dict):
            raise ValueError("a JSON object is needed")
        return json.dumps(converter.convert(record))
    except (msgspec.MsgspecError, ValueError) as error:
        raise TraceError(f"{path}:{number}: {error}") from None


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
                return datetime.fromisoformat(value).timestamp() * 1000
            except ValueError:
                raise ValueError(f"{key} = {value!r}: a number or an ISO 8601 time is needed") from None
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
