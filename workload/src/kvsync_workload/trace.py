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

**Sessions.** A line may name a `session_id`. The lines of one session are turns, and each of them begins `delay`
milliseconds after the turn before it has ended; without `delay`, the distance of their timestamps counts. A turn may
leave its timestamp out. `input_tokens`, `output_tokens`, `created_time` and `delay_ms` are other names of the fields
that other tools write.
"""

from collections.abc import Iterable, Iterator, Sequence
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
    waits_for: tuple[int, ...] = ()
    """Positions, in the trace, of the requests that must have ended before this one begins (a closed loop)."""
    think_s: float = 0.0
    """Seconds between the end of the last of those and the beginning of this request."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests in order of arrival."""

    requests: tuple[TraceRequest, ...]
    reordered: int = 0
    """How many requests came after a later one in the file."""


class _Line(msgspec.Struct):
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]
    timestamp: float | None = None
    session_id: str | int | None = None
    delay: float | None = None


_OTHER_NAMES = {
    "input_tokens": "input_length",
    "output_tokens": "output_length",
    "created_time": "timestamp",
    "delay_ms": "delay",
}
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
    return _order(lines)


def _order(lines: list[_Line]) -> Trace:
    """The requests in order of arrival, with the turns of a session bound to each other."""
    times, thinks = _times(lines)
    reordered = _count_late(times)
    order = sorted(range(len(lines)), key=times.__getitem__)
    start_ms = times[order[0]]
    requests: list[TraceRequest] = []
    turns: dict[str | int, int] = {}
    for at, place in enumerate(order):
        line = lines[place]
        before = None if line.session_id is None else turns.get(line.session_id)
        if line.session_id is not None:
            turns[line.session_id] = at
        requests.append(
            TraceRequest(
                (times[place] - start_ms) / 1000,
                line.input_length,
                line.output_length,
                line.hash_ids,
                () if before is None else (before,),
                0.0 if before is None else thinks[place] / 1000,
            )
        )
    return Trace(tuple(requests), reordered)


def _times(lines: Sequence[_Line]) -> tuple[list[float], list[float]]:
    """Milliseconds: when each line is due if answers took no time, and its distance to the turn before it."""
    times: list[float] = []
    thinks: list[float] = []
    last: dict[str | int, float] = {}
    for line in lines:
        before = None if line.session_id is None else last.get(line.session_id)
        time_ms = line.timestamp if line.timestamp is not None else (before or 0.0) + (line.delay or 0.0)
        think_ms = line.delay if line.delay is not None else max(time_ms - (before or 0.0), 0.0)
        if line.session_id is not None:
            last[line.session_id] = time_ms
        times.append(time_ms)
        thinks.append(think_ms)
    return times, thinks


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[_Line]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield _parse(number, line)
            except (msgspec.MsgspecError, ValueError) as error:
                raise TraceError(f"{path}:{number}: {error}") from None


def _parse(number: int, line: bytes) -> _Line:
    """A line with its gaps filled in. Raises ValueError or an error of msgspec."""
    fields = _decode(line)
    if fields.timestamp is None and fields.session_id is None:
        raise ValueError("timestamp: is missing; only a turn of a session may leave it out")
    for name, at_ms in (("timestamp", fields.timestamp), ("delay", fields.delay)):
        if at_ms is not None and not 0 <= at_ms < float("inf"):
            raise ValueError(f"{name} = {at_ms}: a number of milliseconds from 0 is needed")
    for name, value, least in (("input_length", fields.input_length, 1), ("output_length", fields.output_length, 0)):
        if not least <= value <= MAX_LENGTH_TOKENS:
            allowed = f"{least} to {MAX_LENGTH_TOKENS}"
            raise ValueError(f"{name} = {value}: allowed is {allowed}")
    fields.output_length = max(fields.output_length, 1)
    fields.hash_ids = _complete(number, fields.input_length, fields.hash_ids)
    return fields


def _decode(line: bytes) -> _Line:
    try:
        return _DECODER.decode(line)
    except msgspec.ValidationError:
        raw = msgspec.json.decode(line)
        if not isinstance(raw, dict) or not _OTHER_NAMES.keys() & raw.keys():
            raise
        return msgspec.convert({_OTHER_NAMES.get(name, name): value for name, value in raw.items()}, _Line)


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
