"""What one engine with an unlimited cache would have served from it: the bound for every policy."""

from collections.abc import Iterable
from dataclasses import dataclass

from kvsync.load.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Ideal:
    """Hit tokens by request, and what it took to hold everything."""

    hit_tokens: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    distinct_blocks: int

    @property
    def hit_ratio(self) -> float:
        """Hit prefix tokens over prompt tokens."""
        return sum(self.hit_tokens) / max(sum(self.prompt_tokens), 1)


class UnlimitedCache:
    """Every full block of every prompt so far, by its whole prefix."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._children: dict[tuple[int, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._children)

    def serve(self, prompt: Prompt) -> int:
        """Tokens of `prompt` found, by an engine's rule: whole blocks, at most prompt - 1; then keep it all."""
        size = self._block_size
        tokens = prompt.token_ids
        raw = memoryview(tokens).cast("B")
        width = tokens.itemsize * size
        node = found = 0
        matching = True
        for index in range(len(tokens) // size):
            key = (node, bytes(raw[index * width : (index + 1) * width]))
            child = self._children.get(key)
            if child is None:
                matching = False
                child = self._children[key] = len(self._children) + 1
            elif matching:
                found += 1
            node = child
        return min(found, (len(tokens) - 1) // size) * size


def compute_ideal(prompts: Iterable[Prompt], block_size: int) -> Ideal:
    """Serve `prompts` in order from an unlimited cache."""
    cache = UnlimitedCache(block_size)
    hits: list[int] = []
    lengths: list[int] = []
    for prompt in prompts:
        hits.append(cache.serve(prompt))
        lengths.append(len(prompt.token_ids))
    return Ideal(tuple(hits), tuple(lengths), len(cache))
