"""Reads request traces in the JSONL format that the Mooncake authors publish (FAST'25 release).

Each line holds `timestamp` (milliseconds), `input_length` and `output_length` (tokens), and `hash_ids`, one id per
block of 512 input tokens. Equal ids mean equal content after an equal prefix. A trace holds no text and no token ids.

The reader settles everything that a trace leaves open, so that no consumer has to:

- Requests are ordered by timestamp, requests with equal timestamps by their place in the file. `Trace.reordered` says
  how many had to be moved. The first arrival is at 0.
- An `output_length` of 0 counts as 1, because an engine generates at least one token per request.
- `hash_ids` holds one id per started block, or one per full block. In the second case the remaining tokens belong to
  that request alone, and the reader adds an id that no trace can contain. Any other number of ids is an error, because
  it means blocks of another size.
- An id is any number from 0 to 2^64 - 1.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec

from kvsync_workload.errors import TraceError

TRACE_BLOCK_TOKENS = 512
MAX_LENGTH_TOKENS = 2**24
MAX_HASH_ID = 2**64 - 1
FIRST_PRIVATE_ID = MAX_HASH_ID + 1
"""Ids from here on stand for blocks that only one request contains; the line number is added."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request of a trace."""

    arrival_s: float
    """Seconds since the first arrival of the trace."""
    input_tokens: int
    output_tokens: int
    """At least 1."""
    hash_ids: tuple[int, ...]
    """One id per started block of the input."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival."""

    requests: tuple[TraceRequest, ...]
    reordered: int = 0
    """How many requests came after a later one in the file."""


class _Line(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


_DECODER = msgspec.json.Decoder(_Line)


def read_trace(path: Path, limit: int | None = None) -> Trace:
    """Read the first `limit` requests of a file, or all of them, and put them in order of arrival.

    Lines after the first `limit` requests are not read. Raises TraceError for anything that is not a trace.
    """
    try:
        with path.open("rb") as file:
            lines = list(islice(_lines(path, file), limit))
    except OSError as error:
        raise TraceError(f"trace {path}: {error.strerror}") from None
    if not lines:
        raise TraceError(f"trace {path}: holds no request")
    reordered = _count_late(line.timestamp for line in lines)
    lines.sort(key=lambda line: line.timestamp)
    start_ms = lines[0].timestamp
    requests = (
        TraceRequest((line.timestamp - start_ms) / 1000, line.input_length, line.output_length, line.hash_ids)
        for line in lines
    )
    return Trace(tuple(requests), reordered)


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[_Line]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield _parse(number, line)
            except (msgspec.MsgspecError, ValueError) as error:
                raise TraceError(f"{path}:{number}: {error}") from None


def _parse(number: int, line: bytes) -> _Line:
    """A line with its gaps filled in. Raises ValueError or an error of msgspec."""
    fields = _DECODER.decode(line)
    if not 0 <= fields.timestamp < float("inf"):
        raise ValueError(f"timestamp = {fields.timestamp}: a number of milliseconds from 0 is needed")
    for name, value, least in (("input_length", fields.input_length, 1), ("output_length", fields.output_length, 0)):
        if not least <= value <= MAX_LENGTH_TOKENS:
            allowed = f"{least} to {MAX_LENGTH_TOKENS}"
            raise ValueError(f"{name} = {value}: allowed is {allowed}")
    fields.output_length = max(fields.output_length, 1)
    fields.hash_ids = _complete(number, fields.input_length, fields.hash_ids)
    return fields


def _complete(number: int, input_length: int, hash_ids: tuple[int, ...]) -> tuple[int, ...]:
    """One id per started block."""
    full, rest = divmod(input_length, TRACE_BLOCK_TOKENS)
    if hash_ids and not (min(hash_ids) >= 0 and max(hash_ids) <= MAX_HASH_ID):
        raise ValueError(f"hash_ids: every id must be from 0 to {MAX_HASH_ID}")
    if rest and len(hash_ids) == full:
        return (*hash_ids, FIRST_PRIVATE_ID + number)
    if len(hash_ids) != full + bool(rest):
        raise ValueError(
            f"input_length = {input_length} needs {full + bool(rest)} hash_ids, one per {TRACE_BLOCK_TOKENS} tokens, "
            f"not {len(hash_ids)}"
        )
    return hash_ids


def _count_late(timestamps: Iterable[float]) -> int:
    latest, late = 0.0, 0
    for timestamp in timestamps:
        late += timestamp < latest
        latest = max(latest, timestamp)
    return late
