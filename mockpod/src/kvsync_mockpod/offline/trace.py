"""Traces in the form the Mooncake authors publish: lengths, arrival times and an id for every 512-token block.

Equal ids mean equal content and equal prefix, so token ids and block hashes follow from the ids alone and need not be
made before somebody looks at them.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kvsync_mockpod.engine import EngineError

__all__ = [
    "BLOCK_TOKENS",
    "TraceError",
    "TraceRequest",
    "ideal_hit_tokens",
    "packed_tokens",
    "prompt_tokens",
    "read_trace",
]

BLOCK_TOKENS = 512
"""Tokens of one trace block."""
FIRST_TOKEN = 1000
"""Token ids of prompts start here; smaller ones are special."""
MAX_ID = ((1 << 32) - FIRST_TOKEN) // BLOCK_TOKENS - 1
"""Largest block id whose token ids fit 32 bits."""

_ONES = int.from_bytes(array("I", [1] * BLOCK_TOKENS).tobytes(), sys.byteorder)
_PLACES = int.from_bytes(array("I", range(BLOCK_TOKENS)).tobytes(), sys.byteorder)
"""0, 1, 2, … and 1, 1, 1, … of a block as one long number each: a block's tokens are then one product and one sum."""


class TraceError(EngineError):
    """A trace that cannot be replayed: names the file, the line and what is wrong."""


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One line of a trace."""

    arrival_s: float
    input_tokens: int
    output_tokens: int
    block_ids: tuple[int, ...]
    """One id per started 512 input tokens."""


class _Row(msgspec.Struct, frozen=True):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


_decode = msgspec.json.Decoder(_Row).decode


def read_trace(path: str | Path, limit: int | None = None) -> list[TraceRequest]:
    """The requests of a JSONL trace, at most `limit`, by arrival (file order among equals).

    Raises TraceError naming file and line for anything else than `timestamp` (ms, not negative), `input_length`,
    `output_length` (both at least 1) and `hash_ids` (one id per started 512 tokens).
    """
    out: list[TraceRequest] = []
    try:
        with Path(path).open("rb") as lines:
            for n, line in enumerate(lines, 1):
                if limit is not None and len(out) >= limit:
                    break
                if line.strip():
                    out.append(_request(line, f"{path}:{n}"))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from None
    if not out:
        raise TraceError(f"{path}: no request in it")
    out.sort(key=lambda r: r.arrival_s)
    return out


def _request(line: bytes, where: str) -> TraceRequest:
    try:
        row = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TraceError(f"{where}: {error}") from None
    if not 0 <= row.timestamp < float("inf"):
        raise TraceError(f"{where}: timestamp must be milliseconds from 0 on, got {row.timestamp}")
    for name in ("input_length", "output_length"):
        if getattr(row, name) < 1:
            raise TraceError(f"{where}: {name} must be at least 1, got {getattr(row, name)}")
    ids = row.hash_ids
    need = -(-row.input_length // BLOCK_TOKENS)
    if len(ids) != need:
        raise TraceError(f"{where}: input_length {row.input_length} needs {need} hash_ids, got {len(ids)}")
    if min(ids) < 0 or max(ids) > MAX_ID:
        raise TraceError(f"{where}: hash_ids must be from 0 to {MAX_ID}")
    return TraceRequest(row.timestamp / 1000.0, row.input_length, row.output_length, ids)


class prompt_tokens(Sequence[int]):  # noqa: N801 - a lazy list of tokens, used like one
    """The token ids of a trace prompt, made when they are looked at."""

    __slots__ = ("_ids", "_length")

    def __init__(self, request: TraceRequest) -> None:
        self._ids = request.block_ids
        self._length = request.input_tokens

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - int or slice, as any sequence
        if not isinstance(index, slice):
            if not -self._length <= index < self._length:
                raise IndexError(index)
            block, offset = divmod(index % self._length, BLOCK_TOKENS)
            return FIRST_TOKEN + self._ids[block] * BLOCK_TOKENS + offset
        start, stop, step = index.indices(self._length)
        out: list[int] = []
        at = start
        while at < stop:
            block, offset = divmod(at, BLOCK_TOKENS)
            n = min(BLOCK_TOKENS - offset, stop - at)
            first = FIRST_TOKEN + self._ids[block] * BLOCK_TOKENS + offset
            out += range(first, first + n)
            at += n
        return out[::step]

    def packed(self) -> "array[int]":
        """All of them as unsigned 32-bit numbers, without an object for each."""
        out = array("I")
        for block in self._ids:
            first = FIRST_TOKEN + block * BLOCK_TOKENS
            out.frombytes((_PLACES + _ONES * first).to_bytes(4 * BLOCK_TOKENS, sys.byteorder))
        del out[self._length :]
        return out


def packed_tokens(tokens: Sequence[int]) -> "array[int]":
    """A prompt as unsigned 32-bit numbers, as an index wants them."""
    return tokens.packed() if isinstance(tokens, prompt_tokens) else array("I", tokens)


def ideal_hit_tokens(requests: Iterable[TraceRequest], block_size: int) -> int:
    """Tokens that one unlimited cache of such blocks would have served, requests one after the other.

    A hit is the longest known prefix in whole blocks that leaves at least one token to compute.
    """
    whole: set[int] = set()
    """Trace blocks that are cached in full."""
    part: dict[int, int] = {}
    """Of the last blocks of prompts: how many of their tokens are cached in whole engine blocks."""
    total = 0
    for r in requests:
        ids, length = r.block_ids, r.input_tokens
        full = length // BLOCK_TOKENS
        known = 0
        while known < len(ids) and ids[known] in whole:
            known += 1
        hit = known * BLOCK_TOKENS
        if known < len(ids):
            hit += part.get(ids[known], 0)
        total += min(hit, (length - 1) // block_size * block_size)
        whole.update(ids[known:full])
        if full < len(ids):
            tokens = length // block_size * block_size - full * BLOCK_TOKENS
            part[ids[full]] = max(tokens, part.get(ids[full], 0))
    return total
