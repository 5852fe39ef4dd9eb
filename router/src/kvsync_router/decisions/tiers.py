"""What a matched block is worth, by the tier that holds it.

A block on the device is used at once. One in host memory or on a disk must be copied first, so it saves less.
"""

from collections.abc import Mapping
from typing import Final

DEFAULT_TIER_WEIGHTS: Final[Mapping[str, float]] = {"GPU": 1.0, "CPU": 0.8, "STORAGE": 0.5}


class TierWeights:
    """Weights between 0 and 1 by the name of the tier. A tier without a weight counts as the lowest of them."""

    def __init__(self, given: Mapping[str, float] = DEFAULT_TIER_WEIGHTS) -> None:
        """`given` replaces the defaults of the tiers that it names."""
        self._weights = {**DEFAULT_TIER_WEIGHTS, **given}
        self._lowest = min(self._weights.values())
        self._whole = frozenset(tier for tier, weight in self._weights.items() if weight == 1.0)

    def saved_tokens(self, matched_tokens: int, blocks_by_tier: Mapping[str, int], block_size: int) -> float:
        """The tokens that a match is worth. Blocks that are in no tier, because no window needs them, count fully."""
        if blocks_by_tier.keys() <= self._whole:
            return matched_tokens
        lost = sum(blocks * (1.0 - self._weights.get(tier, self._lowest)) for tier, blocks in blocks_by_tier.items())
        return max(matched_tokens - lost * block_size, 0.0)


def parse_tier_weights(text: str) -> dict[str, float]:
    """Read `GPU=1,CPU=0.8`; an empty text names no tier. Raises ValueError, which quotes what cannot be read."""
    weights: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        tier, _, value = part.partition("=")
        try:
            weight = float(value)
        except ValueError:
            weight = -1.0
        if not tier or not 0.0 <= weight <= 1.0:
            raise ValueError(f"tier weight {part!r}: expected TIER=WEIGHT with a weight between 0 and 1")
        weights[tier.strip().upper()] = weight
    return weights
