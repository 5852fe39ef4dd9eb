"""Token ids for a trace that has none: a pure function of the block ids, so equal ids give equal prefixes.

A block of the trace (512 tokens) becomes `512 / scale` tokens; with scale 32 that is one 16-token engine block, so a
14,000-token prompt costs a laptop what a 430-token prompt does while the sharing between prompts stays as it was.
Tokens of a block depend on its id alone; what an input has beyond its listed blocks is its own.
"""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from kvsync.errors import UsageProblemError
from kvsync.load.trace import TRACE_BLOCK_TOKENS, TraceRequest

if TYPE_CHECKING:
    Tokens: TypeAlias = array[int]
else:
    Tokens = array

FIRST_TOKEN = 70_000
TOKEN_COUNT = 430_000
"""Ids 70,000 to 499,999: above 65,535, so that nothing downstream may keep a token in 16 bits."""
KEPT_BLOCKS = 32_768
_MASK = (1 << 64) - 1
_OWN_TOKENS = 1 << 62


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request as it is sent: `arrival_s` after the start, in the trace's own time."""

    number: int
    arrival_s: float
    token_ids: Tokens
    output_tokens: int


def mix64(value: int) -> int:
    """The splitmix64 finalizer (Steele, Lea and Flood 2014), on 64 bits."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def block_tokens(block_id: int, count: int) -> Tokens:
    """`count` token ids of the trace block `block_id`; a longer block begins with a shorter one's tokens."""
    state = mix64(block_id & _MASK)
    return array("I", (FIRST_TOKEN + mix64(state + index) % TOKEN_COUNT for index in range(count)))


class PromptMaker:
    """Makes prompts at one scale; the tokens of recent blocks are kept."""

    def __init__(self, scale: int = 1) -> None:
        if scale < 1 or TRACE_BLOCK_TOKENS % scale:
            allowed = "a divisor of 512"
            raise UsageProblemError(f"scale = {scale}: allowed is {allowed}")
        self.scale = scale
        self.block_tokens = TRACE_BLOCK_TOKENS // scale
        self._blocks: dict[int, Tokens] = {}

    def make(self, number: int, request: TraceRequest, arrival_s: float) -> Prompt:
        """The prompt of one request; at least one token in and one out."""
        length = max(request.input_tokens // self.scale, 1)
        tokens: Tokens = array("I")
        for block_id in request.hash_ids:
            tokens.extend(self._block(block_id))
            if len(tokens) >= length:
                break
        if len(tokens) < length:
            tokens.extend(block_tokens(_OWN_TOKENS + number, length - len(tokens)))
        del tokens[length:]
        return Prompt(number, arrival_s, tokens, max(request.output_tokens // self.scale, 1))

    def _block(self, block_id: int) -> Tokens:
        tokens = self._blocks.get(block_id)
        if tokens is None:
            if len(self._blocks) >= KEPT_BLOCKS:
                self._blocks.clear()
            tokens = self._blocks[block_id] = block_tokens(block_id, self.block_tokens)
        return tokens


class PromptStream:
    """Prompts of a whole trace, made as they are asked for, and again the same: a long trace need not fit in memory."""

    def __init__(self, requests: Sequence[TraceRequest], scale: int, arrivals_s: Sequence[float] | None = None) -> None:
        """Requests arrive as in the trace unless other times are given."""
        self._requests = requests
        self._times = arrivals_s if arrivals_s is not None else [request.timestamp_ms / 1000 for request in requests]
        self._maker = PromptMaker(scale)

    def __iter__(self) -> Iterator[Prompt]:
        for number, (request, arrival_s) in enumerate(zip(self._requests, self._times, strict=True)):
            yield self._maker.make(number, request, arrival_s)


def make_prompts(requests: Sequence[TraceRequest], scale: int) -> list[Prompt]:
    """Prompts of a whole trace, all at once."""
    return list(PromptStream(requests, scale))
