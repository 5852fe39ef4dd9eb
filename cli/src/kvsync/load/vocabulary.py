"""Keeps token ids inside an engine's vocabulary.

The ids of a trace identify its blocks and know nothing of a model. Ids beyond the vocabulary are replaced by ids inside
it, the same id always by the same one, so that equal prefixes stay equal. Two different blocks become equal only if
every token in which they differ happens to get the same replacement.
"""

from collections.abc import Iterable

_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


class Vocabulary:
    """The ids from 0 to `size - 1`."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be positive, not {size}")
        self.size = size

    def fold(self, token_ids: Iterable[int]) -> list[int]:
        """The ids, with those beyond the vocabulary replaced."""
        return [token if token < self.size else self._replaced(token) for token in token_ids]

    def _replaced(self, token: int) -> int:
        mixed = token * _MULTIPLIER & _MASK
        return ((mixed ^ mixed >> 32) * _MULTIPLIER & _MASK) % self.size
