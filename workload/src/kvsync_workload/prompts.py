"""Prompts for the requests of a trace: token ids that follow from block ids, so that equal ids give equal prefixes.

Lengths can be scaled down. A block of the trace then becomes `512 / scale` tokens; with scale 32 that is one 16-token
engine block, and a prompt of 14,000 tokens becomes one of about 430 while prompts share as much as before.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvsync_workload.errors import SettingError
from kvsync_workload.tokens import Tokens, block_tokens
from kvsync_workload.trace import TRACE_BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class Scale:
    """Divides the lengths of a trace. Raises SettingError unless the divisor divides 512.

    Blocks have fewer than three tokens from divisor 256 on; blocks with different ids may then be equal.
    """

    divisor: int = 1

    def __post_init__(self) -> None:
        if self.divisor < 1 or TRACE_BLOCK_TOKENS % self.divisor:
            allowed = f"a divisor of {TRACE_BLOCK_TOKENS}"
            raise SettingError(f"scale = {self.divisor}: allowed is {allowed}")

    @property
    def block_tokens(self) -> int:
        """Tokens per block of the trace."""
        return TRACE_BLOCK_TOKENS // self.divisor

    def length(self, tokens: int) -> int:
        """A scaled length: at least 1."""
        return max(tokens // self.divisor, 1)

    def blocks(self, request: TraceRequest) -> Sequence[int]:
        """The ids of the blocks that the scaled input starts; scaling may drop the last one."""
        return request.hash_ids[: -(-self.length(request.input_tokens) // self.block_tokens)]


FULL_SCALE = Scale()


class PromptTokens(Sequence[int]):
    """The token ids of one request, made when they are read, so that a waiting request takes no memory."""

    __slots__ = ("_block_tokens", "_ids", "_length")

    def __init__(self, request: TraceRequest, scale: Scale = FULL_SCALE) -> None:
        self._ids = request.hash_ids
        self._length = scale.length(request.input_tokens)
        self._block_tokens = scale.block_tokens

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - int or slice, as in any sequence
        if not isinstance(index, slice):
            if not -self._length <= index < self._length:
                raise IndexError(index)
            block, offset = divmod(index % self._length, self._block_tokens)
            return block_tokens(self._ids[block])[offset]
        start, stop, step = index.indices(self._length)
        if step != 1:
            return self[:][index]
        tokens: list[int] = []
        while start < stop:
            block, offset = divmod(start, self._block_tokens)
            end = min(offset + stop - start, self._block_tokens)
            tokens += block_tokens(self._ids[block])[offset:end]
            start += end - offset
        return tokens

    def packed(self) -> Tokens:
        """All of them as unsigned 32-bit numbers, without a Python object per token."""
        size, tokens = self._block_tokens, array("I")
        for block_id in self._ids[: -(-self._length // size)]:
            block = block_tokens(block_id)
            tokens += block if size == TRACE_BLOCK_TOKENS else block[:size]
        del tokens[self._length :]
        return tokens


def pack_tokens(tokens: Sequence[int]) -> Tokens:
    """Any prompt as unsigned 32-bit numbers."""
    return tokens.packed() if isinstance(tokens, PromptTokens) else array("I", tokens)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request as a client sends it."""

    number: int
    """Place in the trace, from 0."""
    arrival_s: float
    token_ids: Tokens
    output_tokens: int


class PromptStream:
    """The prompts of a whole trace, made one by one and the same in every iteration, so that memory stays small."""

    def __init__(
        self, requests: Sequence[TraceRequest], scale: int = 1, arrivals_s: Sequence[float] | None = None
    ) -> None:
        """Requests arrive as in the trace unless other times are given."""
        self._requests = requests
        self._times = arrivals_s if arrivals_s is not None else [request.arrival_s for request in requests]
        self._scale = Scale(scale)

    def __iter__(self) -> Iterator[Prompt]:
        for number, (request, arrival_s) in enumerate(zip(self._requests, self._times, strict=True)):
            tokens = PromptTokens(request, self._scale).packed()
            yield Prompt(number, arrival_s, tokens, self._scale.length(request.output_tokens))


def make_prompts(requests: Sequence[TraceRequest], scale: int = 1) -> list[Prompt]:
    """The prompts of a whole trace, all at once."""
    return list(PromptStream(requests, scale))
