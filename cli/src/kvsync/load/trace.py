"""Mooncake-style traces: one JSON object a line, with timing, lengths and ids of 512-token blocks, no text.

Format (kvcache-ai/Mooncake, FAST'25 release): `timestamp` in ms since the start, `input_length` and `output_length` in
tokens, `hash_ids`, one id a block of the input. Equal ids mean equal content and equal prefix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kvsync.errors import TraceError

TRACE_BLOCK_TOKENS = 512
MAX_LENGTH_TOKENS = 2**24


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace, as written there."""

    timestamp_ms: float
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...]


class _Line(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int]


_DECODER = msgspec.json.Decoder(_Line)


def iterate_trace(path: Path) -> Iterator[TraceRequest]:
    """Requests of the file in order; TraceError is one line with file, line number and what is wrong."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse(path, number, line)
    except OSError as error:
        raise TraceError(f"trace {path}: {error.strerror}") from None


def read_trace(path: Path, limit: int | None = None) -> list[TraceRequest]:
    """The first `limit` requests of the file (all for None), arrival times from 0 and never falling."""
    requests: list[TraceRequest] = []
    start_ms = latest_ms = 0.0
    for request in iterate_trace(path):
        if not requests:
            start_ms = request.timestamp_ms
        latest_ms = max(latest_ms, request.timestamp_ms - start_ms)
        requests.append(TraceRequest(latest_ms, request.input_tokens, request.output_tokens, request.hash_ids))
        if limit is not None and len(requests) >= limit:
            break
    if not requests:
        raise TraceError(f"trace {path}: holds no request")
    return requests


def _parse(path: Path, number: int, line: bytes) -> TraceRequest:
    try:
        fields = _DECODER.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}:{number}: {error}") from None
    if not 0 <= fields.timestamp < float("inf"):
        raise TraceError(f"{path}:{number}: timestamp = {fields.timestamp}: a number of milliseconds from 0 is needed")
    for name, value, least in (("input_length", fields.input_length, 1), ("output_length", fields.output_length, 0)):
        if not least <= value <= MAX_LENGTH_TOKENS:
            allowed = f"{least} to {MAX_LENGTH_TOKENS}"
            raise TraceError(f"{path}:{number}: {name} = {value}: allowed is {allowed}")
    return TraceRequest(fields.timestamp, fields.input_length, fields.output_length, tuple(fields.hash_ids))
