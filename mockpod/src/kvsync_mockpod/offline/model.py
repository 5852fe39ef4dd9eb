"""The requests of a trace as the engine sees them: lazy prompts, hashes that follow from prefixes, unique outputs."""

from collections.abc import Iterator, Sequence
from typing import Any

from kvsync_mockpod.engine import EngineConfigError, Executor, Request
from kvsync_mockpod.engine.sequence import Sequence as EngineSequence
from kvsync_workload.prompts import PromptTokens
from kvsync_workload.trace import TRACE_BLOCK_TOKENS, TraceRequest

_OUTPUT = 1 << 62
"""This bit is set in the hashes of blocks that contain output tokens."""
_FIRST_OUTPUT_TOKEN = 1 << 31
"""Output token ids start above those of prompts."""


def make_request(number: int, trace: TraceRequest, path: Sequence[int], arrival_s: float, block_size: int) -> Request:
    """The engine's request for a request of the trace. Its id is `number`; `path` comes from a PrefixTree."""
    return Request(
        request_id=str(number),
        prompt_token_ids=PromptTokens(trace),
        max_tokens=trace.output_tokens,
        arrival_s=arrival_s,
        ignore_eos=True,
        block_hashes=PromptHashes(path, trace.input_tokens, block_size),
    )


class PromptHashes(Sequence[Any]):
    """One number per full engine block, made when they are read, so that a waiting request takes little memory.

    A node of the prefix tree and a position in its trace block identify an engine block with its prefix.
    """

    __slots__ = ("_length", "_path", "_size")

    def __init__(self, path: Sequence[int], input_tokens: int, block_size: int) -> None:
        self._path = path
        self._length = input_tokens // block_size
        self._size = block_size

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - int or slice, as in any sequence
        if isinstance(index, slice):
            return list(self)[index]
        if not -self._length <= index < self._length:
            raise IndexError(index)
        index %= self._length
        if self._size >= TRACE_BLOCK_TOKENS:
            return self._path[(index + 1) * (self._size // TRACE_BLOCK_TOKENS) - 1]
        block, place = divmod(index, TRACE_BLOCK_TOKENS // self._size)
        return self._path[block] * (TRACE_BLOCK_TOKENS // self._size) + place

    def __iter__(self) -> Iterator[Any]:
        if self._size >= TRACE_BLOCK_TOKENS:
            return iter([self[i] for i in range(self._length)])
        hashes: list[int] = []
        per_node = TRACE_BLOCK_TOKENS // self._size
        begin = end = self._path[0]
        for node in self._path:
            if node != end:  # nodes added together have successive numbers: one range covers their hashes
                hashes += range(begin * per_node, end * per_node)
                begin = node
            end = node + 1
        hashes += range(begin * per_node, end * per_node)
        del hashes[self._length :]
        return iter(hashes)


class TraceIdentity:
    """Block hashes of a replay: numbers below 2^63, the same on every worker and in every run of the same requests."""

    needs_tokens = False

    def __init__(self, block_size: int) -> None:
        if TRACE_BLOCK_TOKENS % block_size and block_size % TRACE_BLOCK_TOKENS:
            raise EngineConfigError(
                f"block_size {block_size}: must divide {TRACE_BLOCK_TOKENS}, a trace block, or be a multiple of it"
            )

    def extend(self, seq: EngineSequence, blocks: int) -> list[Any]:
        """The hashes of the prompt, followed by hashes that only this request and position have."""
        hashes: list[Any] = seq.known_hashes()
        have = len(hashes)
        if have < blocks:
            base = _OUTPUT | int(seq.id) << 24
            hashes += range(base + have, base + blocks)
        return hashes

    def event_keys(self, request: Request, first: int, stop: int) -> list[tuple[Any, ...] | None] | None:
        """None, because a trace has neither LoRA adapters nor cache salts."""
        del request, first, stop
        return None


class TraceExecutor(Executor):
    """Outputs of the length that the trace asks for, made of tokens that no prompt contains."""

    ends_are_known = True
    outputs_are_distinct = True

    def sample(self, request: Request, index: int) -> int:
        """The token of this request and position."""
        return _FIRST_OUTPUT_TOKEN + (int(request.request_id) * 8191 + index) % _FIRST_OUTPUT_TOKEN

    def samples(self, request: Request, first: int, count: int) -> list[int]:
        """The tokens of several successive positions."""
        base = int(request.request_id) * 8191 + first
        if (base + count) % _FIRST_OUTPUT_TOKEN < count:
            return super().samples(request, first, count)
        base = _FIRST_OUTPUT_TOKEN + base % _FIRST_OUTPUT_TOKEN
        return list(range(base, base + count))

    def stop_index(self, request: Request) -> int:
        """The position of the last token."""
        return request.max_tokens - 1
