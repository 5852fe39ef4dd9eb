"""What one engine with an unlimited cache would have served from it: the upper bound for every routing policy."""

from array import array
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
    """Every full engine block of every prompt so far. Prompts are given as paths of one PrefixTree."""

    def __init__(self, block_size: int, trace_block_tokens: int = TRACE_BLOCK_TOKENS) -> None:
        """`block_size` is the engine's; the two sizes need not divide one another."""
        self._block_size = block_size
        self._trace_block_tokens = trace_block_tokens
        self._longest = array("H", [0])
        """By node of the tree: how many tokens of that trace block the prompts so far contained at most."""
        self.blocks = 0
        """Engine blocks held."""

    def serve(self, path: Sequence[int], length: int) -> int:
        """Tokens found of a prompt with `length` tokens, which is then kept.

        As in an engine, only whole blocks are found, and at least one token is left to compute.
        """
        longest, size = self._longest, self._trace_block_tokens
        longest.extend([0] * (max(path) + 1 - len(longest)))
        shared, matching, rest = 0, True, length
        for node in path:
            tokens, known = min(rest, size), longest[node]
            rest -= tokens
            if matching:
                shared += min(known, tokens)
                matching = known == size
            if known < tokens:
                longest[node] = tokens
        block = self._block_size
        self.blocks += length // block - shared // block
        return min(shared, length - 1) // block * block


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
