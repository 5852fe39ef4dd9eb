"""A trace's requests as the engine sees them: lazy prompts, hashes from block ids, outputs that nobody repeats."""

from collections.abc import Iterator, Sequence
from typing import Any

from kvsync_mockpod.engine import EngineConfigError, Executor, Request
from kvsync_mockpod.engine.sequence import Sequence as EngineSequence

from .trace import BLOCK_TOKENS, TraceRequest, prompt_tokens

__all__ = ["TraceExecutor", "TraceIdentity", "make_request", "prompt_hashes"]

_OUTPUT = 1 << 62
"""Hashes of blocks with output tokens have this bit."""
_FIRST_OUTPUT_TOKEN = 1 << 31
"""Output token ids are outside those of prompts."""


def make_request(number: int, trace: TraceRequest, arrival_s: float, block_size: int) -> Request:
    """The engine's request for a trace line; its id is the number, its prompt and hashes follow from block ids."""
    return Request(
        request_id=str(number),
        prompt_token_ids=prompt_tokens(trace),
        max_tokens=trace.output_tokens,
        arrival_s=arrival_s,
        ignore_eos=True,
        block_hashes=prompt_hashes(trace, block_size),
    )


class prompt_hashes(Sequence[Any]):  # noqa: N801 - a lazy list of hashes, used like one
    """One number per full block, made when they are looked at: a request that waits costs nothing.

    Equal trace ids mean equal prefixes, so an id and a position in it name a block.
    """

    __slots__ = ("_ids", "_length", "_size")

    def __init__(self, trace: TraceRequest, block_size: int) -> None:
        self._ids = trace.block_ids
        self._length = trace.input_tokens // block_size
        self._size = block_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - int or slice, as any sequence
        if isinstance(index, slice):
            return list(self)[index]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        index %= self._length
        if self._size >= BLOCK_TOKENS:
            return self._ids[(index + 1) * (self._size // BLOCK_TOKENS) - 1]
        block, place = divmod(index, BLOCK_TOKENS // self._size)
        return self._ids[block] * (BLOCK_TOKENS // self._size) + place

    def __iter__(self) -> Iterator[Any]:
        if self._size >= BLOCK_TOKENS:
            return iter([self[i] for i in range(self._length)])
        per_id = BLOCK_TOKENS // self._size
        out: list[int] = []
        for block in self._ids:
            first = block * per_id
            out += range(first, first + per_id)
        del out[self._length :]
        return iter(out)


class TraceIdentity:
    """Block hashes of a trace: numbers below 2^63, the same on every worker and in every run."""

    needs_tokens = False

    def __init__(self, block_size: int) -> None:
        if BLOCK_TOKENS % block_size and block_size % BLOCK_TOKENS:
            raise EngineConfigError(
                f"block_size {block_size}: a trace of {BLOCK_TOKENS}-token blocks needs a divisor or a multiple of that"
            )

    def extend(self, seq: EngineSequence, blocks: int) -> list[Any]:
        """The prompt's hashes, and beyond them those of this request and this position alone."""
        hashes: list[Any] = seq.known_hashes()
        have = len(hashes)
        if have < blocks:
            base = _OUTPUT | int(seq.id) << 24
            hashes += range(base + have, base + blocks)
        return hashes

    def event_keys(self, request: Request, first: int, stop: int) -> list[tuple[Any, ...] | None] | None:
        """None: traces know no LoRA and no salt."""
        del request, first, stop
        return None


class TraceExecutor(Executor):
    """Outputs as long as the trace says, of tokens no prompt contains."""

    ends_are_known = True
    outputs_are_distinct = True

    def sample(self, request: Request, index: int) -> int:
        """A token of this request and position."""
        return _FIRST_OUTPUT_TOKEN + (int(request.request_id) * 8191 + index) % _FIRST_OUTPUT_TOKEN

    def samples(self, request: Request, first: int, count: int) -> list[int]:
        """Several at once."""
        base = int(request.request_id) * 8191 + first
        if (base + count) % _FIRST_OUTPUT_TOKEN < count:
            return super().samples(request, first, count)
        base = _FIRST_OUTPUT_TOKEN + base % _FIRST_OUTPUT_TOKEN
        return list(range(base, base + count))

    def stop_index(self, request: Request) -> int:
        """The last token's."""
        return request.max_tokens - 1
