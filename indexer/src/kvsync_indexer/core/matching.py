"""How much of a chain of prefix keys one publisher holds under its rule.

With full-attention groups only, a match is the longest prefix of which every such group holds every block. A
sliding-window group restricts where a match may end: at a block before which its window is resident (from the start of
the chain, if the match is shorter than the window). The furthest such end counts, so a longer query never matches less.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from kvsync_indexer.core.groups import ResidencyRule, tier_order


def matched_tiers(rule: ResidencyRule, masks: dict[int, int], keys: Sequence[int]) -> list[str | None]:
    """The tier of each matched block, or None for a block outside the windows that no group needs.

    `masks` are residency masks by prefix key.
    """
    tiers = rule.tiers
    if not rule.windows:
        return list(takewhile(_is_held, map(tiers.__getitem__, map(masks.get, keys))))
    along = [masks.get(key, 0) for key in keys]
    return [tiers[mask] for mask in along[: _furthest_end(rule, along)]]


def _is_held(tier: str | None) -> bool:
    return tier is not None


def _furthest_end(rule: ResidencyRule, masks: list[int]) -> int:
    """The length of the longest prefix at whose end every window is resident."""
    runs = [0] * len(rule.windows)
    furthest = 0
    for at, mask in enumerate(masks):
        if not all(mask & full for full in rule.full):
            break
        resident = True
        for index, window in enumerate(rule.windows):
            runs[index] = runs[index] + 1 if mask & window.mask else 0
            resident = resident and runs[index] >= min(window.needed, at + 1)
        if resident:
            furthest = at + 1
    return furthest


def tier_counts(tiers: Sequence[str | None]) -> dict[str, int]:
    """Blocks by tier, nearest first."""
    counts = Counter(tiers)
    del counts[None]
    return {name: counts[name] for name in sorted((name for name in counts if name is not None), key=tier_order)}
