"""Reads agentic coding sessions in the JSON format of Weka's kv-cache-tester, in which AgentX publishes its traces too.

A file is one conversation: an object with `block_size`, `hash_id_scope` and `requests`. A request has `t` (seconds
since the conversation began), `in` and `out` (tokens), `hash_ids` (one per block of `block_size` tokens) and may have
`think_time` (seconds that the client waited before it). An entry of type `subagent` holds the `requests` of another
conversation, which begins when the turn before it has ended; the next turn waits for its end, unless its `status` is
`async_launched`. Times of nested requests count from the conversation's beginning or from the subagent's: whichever the
file uses is recognised by whether they lie before `t` of the subagent.

Requests become turns of a closed loop (`TraceRequest.waits_for`): what is replayed is the time that the client took,
not how fast the recorded server was. Blocks are put together to those of a trace, 512 tokens each. The tokens after the
last whole block of a prompt (fewer than 512) are therefore taken as its own, even where the next turn repeats them.

Sources: github.com/callanjfox/kv-cache-tester, and the description of the format in NVIDIA AIPerf's documentation.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import msgspec

from kvsync_workload.errors import TraceError
from kvsync_workload.trace import FIRST_PRIVATE_ID, MAX_LENGTH_TOKENS, TRACE_BLOCK_TOKENS, Trace, TraceRequest

_ASYNCHRONOUS = "async_launched"


class _Entry(msgspec.Struct, rename={"input_tokens": "in", "output_tokens": "out"}):
    t: float
    type: str = "n"
    input_tokens: int = 0
    output_tokens: int = 1
    hash_ids: tuple[int, ...] = ()
    think_time: float | None = None
    api_time: float | None = None
    status: str | None = None
    requests: "tuple[_Entry, ...]" = ()


class _Conversation(msgspec.Struct):
    requests: tuple[_Entry, ...]
    block_size: int = 64
    hash_id_scope: str = "local"


_DECODER = msgspec.json.Decoder(_Conversation)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A request with the turns that it waits for, which are named by their numbers in the file."""

    entry: _Entry
    at_s: float
    waits_for: tuple[int, ...]
    think_s: float


def is_conversation(path: Path) -> bool:
    """Whether the path is a folder of such files, or a file that begins as one object with `requests`."""
    if path.is_dir():
        return True
    try:
        return path.suffix == ".json" and b'"requests"' in path.read_bytes()
    except OSError:
        return False


def read_conversations(path: Path, limit: int | None = None) -> Trace:
    """Read a file, or all `*.json` of a folder in the order of their names; the first `limit` requests of them all.

    Every conversation begins at 0. Raises TraceError, which names the file and the entry.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise TraceError(f"trace {path}: holds no *.json file")
    requests: list[TraceRequest] = []
    for file in files:
        base = len(requests)
        found = islice(_read(file), None if limit is None else limit - base)
        requests += [replace(one, waits_for=tuple(base + turn for turn in one.waits_for)) for one in found]
        if limit is not None and len(requests) >= limit:
            break
    if not requests:
        raise TraceError(f"trace {path}: holds no request")
    return _in_order(requests)


def _in_order(requests: Sequence[TraceRequest]) -> Trace:
    order = sorted(range(len(requests)), key=lambda number: requests[number].arrival_s)
    places = {number: place for place, number in enumerate(order)}
    moved = (
        replace(requests[number], waits_for=tuple(places[turn] for turn in requests[number].waits_for))
        for number in order
    )
    return Trace(tuple(moved))


def _read(path: Path) -> Iterator[TraceRequest]:
    try:
        conversation = _DECODER.decode(path.read_bytes())
    except OSError as error:
        raise TraceError(f"trace {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise TraceError(f"{path}: {error}") from None
    size = conversation.block_size
    if size < 1 or TRACE_BLOCK_TOKENS % size:
        raise TraceError(f"{path}: block_size = {size}: allowed is a divisor of {TRACE_BLOCK_TOKENS}")
    scope = path.name if conversation.hash_id_scope == "local" else ""
    turns: list[_Turn] = []
    _flatten(conversation.requests, 0.0, (), turns)
    for number, turn in enumerate(turns):
        entry = turn.entry
        for field, value, least in (("in", entry.input_tokens, 1), ("out", entry.output_tokens, 0)):
            if not least <= value <= MAX_LENGTH_TOKENS:
                allowed = f"{least} to {MAX_LENGTH_TOKENS}"
                raise TraceError(f"{path}: request {number}: {field} = {value}: allowed is {allowed}")
        ids = _trace_ids(entry, size, scope, f"{path.name}:{number}")
        output = max(entry.output_tokens, 1)
        yield TraceRequest(turn.at_s, entry.input_tokens, output, ids, turn.waits_for, turn.think_s)


def _flatten(entries: Sequence[_Entry], offset_s: float, waits_for: tuple[int, ...], turns: list[_Turn]) -> int | None:
    """Append the turns of a conversation and of its subagents; return the number of its own last turn.

    The first turn waits for `waits_for`.
    """
    last: int | None = None
    joined: list[int] = []
    before: _Entry | None = None
    for entry in entries:
        if entry.type == "subagent":
            nested = entry.requests
            relative = bool(nested) and nested[0].t < entry.t
            starts = (last,) if last is not None else waits_for
            ended = _flatten(nested, offset_s + entry.t if relative else offset_s, starts, turns)
            if ended is not None and entry.status != _ASYNCHRONOUS:
                joined.append(ended)
            continue
        waits = (*(waits_for if last is None else (last,)), *joined)
        turns.append(_Turn(entry, offset_s + entry.t, waits, _think_s(entry, before) if waits else 0.0))
        last, before, joined = len(turns) - 1, entry, []
    return last


def _think_s(entry: _Entry, before: _Entry | None) -> float:
    """How long the client waited: as recorded, or the distance of the turns without the server's time."""
    if entry.think_time is not None:
        return max(entry.think_time, 0.0)
    return 0.0 if before is None else max(entry.t - before.t - (before.api_time or 0.0), 0.0)


def _trace_ids(entry: _Entry, size: int, scope: str, name: str) -> tuple[int, ...]:
    """One id per started block of 512 tokens; a block that is not wholly named by ids belongs to this request alone."""
    per_block = TRACE_BLOCK_TOKENS // size
    ids = []
    for block in range(-(-entry.input_tokens // TRACE_BLOCK_TOKENS)):
        parts = entry.hash_ids[block * per_block : (block + 1) * per_block]
        whole = len(parts) == per_block and (block + 1) * TRACE_BLOCK_TOKENS <= entry.input_tokens
        ids.append(_number(f"{scope}{parts}") if whole else FIRST_PRIVATE_ID + _number(f"{name}:{block}"))
    return tuple(ids)


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
