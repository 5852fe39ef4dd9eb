"""What one engine with an unlimited cache would have served from it: the upper bound for every routing policy."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvsync_workload.prefixes import PrefixTree
from kvsync_workload.prompts import Scale
from kvsync_workload.trace import TRACE_BLOCK_TOKENS, TraceRequest


@dataclass(frozen=True, slots=True)
class Ideal:
    """Hits of an unlimited cache and its final size."""

    hit_tokens: tuple[int, ...]
    """Per request."""
    prompt_tokens: tuple[int, ...]
    """Per request."""
    distinct_blocks: int
    """Engine blocks that the cache holds in the end."""

    @property
    def hit_ratio(self) -> float:
        """Hit prefix tokens over prompt tokens."""
        return sum(self.hit_tokens) / max(sum(self.prompt_tokens), 1)


class UnlimitedCache:
    """Every full engine block of every prompt so far.

    Prompts are paths of one PrefixTree, served in the order in which the tree made them.
    """

    def __init__(self, block_size: int, trace_block_tokens: int = TRACE_BLOCK_TOKENS) -> None:
        """`block_size` is the engine's; the two sizes need not divide one another."""
        self._block_size = block_size
        self._trace_block_tokens = trace_block_tokens
        self._held = array("H", [0])
        """By node of the tree: the tokens held of that trace block. Only a block that nothing follows is partial."""
        self.blocks = 0
        """Engine blocks held."""

    def serve(self, path: Sequence[int], length: int) -> int:
        """Tokens found of a prompt with `length` tokens, which is then kept.

        As in an engine, only whole blocks are found, and at least one token is left to compute.
        """
        shared = self._keep(path, length)
        size = self._block_size
        self.blocks += length // size - shared // size
        return min(shared, length - 1) // size * size

    def _keep(self, path: Sequence[int], length: int) -> int:
        """Hold the prompt; return the length of its longest prefix that was held before."""
        held, size = self._held, self._trace_block_tokens
        known = bisect_left(path, len(held))
        shared = 0
        if known:
            last, before = path[known - 1], (known - 1) * size
            shared = min(before + held[last], length)
            held[last] = max(held[last], min(length - before, size))
        if known < len(path):
            held.extend([size] * (len(path) - known))
            held[-1] = length - (len(path) - 1) * size
        return shared


def compute_ideal(requests: Iterable[TraceRequest], block_size: int, scale: int = 1) -> Ideal:
    """Serve the requests in order, with lengths divided by `scale`, from an unlimited cache."""
    scaled = Scale(scale)
    tree, cache = PrefixTree(), UnlimitedCache(block_size, scaled.block_tokens)
    hits: list[int] = []
    lengths: list[int] = []
    for request in requests:
        lengths.append(scaled.length(request.input_tokens))
        hits.append(cache.serve(tree.path(scaled.blocks(request)), lengths[-1]))
    return Ideal(tuple(hits), tuple(lengths), cache.blocks)
