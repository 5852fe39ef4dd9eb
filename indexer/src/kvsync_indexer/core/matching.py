"""How much of a chain of keys one publisher holds, given its plan.

With full-attention groups only, that is the longest prefix all of whose blocks every such group holds. A sliding-window
group restricts where a match may end: at a block whose window before it is resident (from the chain's start, if the
match is shorter than the window). The answer is the furthest such end, so a longer query never matches less.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import takewhile

from kvsync_indexer.core.groups import Plan, tier_order


def matched_tiers(plan: Plan, resident: dict[int, int], keys: Sequence[int]) -> list[str | None]:
    """One entry for each matched block: the tier it is in, or None if no group needs it there (outside the windows)."""
    verdicts = plan.verdicts
    if not plan.windows:
        return list(takewhile(_held, map(verdicts.__getitem__, map(resident.get, keys))))
    masks = [resident.get(key, 0) for key in keys]
    length = _furthest_end(plan, masks)
    return [verdicts[mask] for mask in masks[:length]]


def _held(tier: str | None) -> bool:
    return tier is not None


def _furthest_end(plan: Plan, masks: list[int]) -> int:
    """Blocks of the longest prefix that ends where every window is resident."""
    runs = [0] * len(plan.windows)
    best = 0
    for at, mask in enumerate(masks):
        if not all(mask & full for full in plan.full):
            break
        good = True
        for window, (wanted, needed) in enumerate(plan.windows):
            runs[window] = runs[window] + 1 if mask & wanted else 0
            good = good and runs[window] >= min(needed, at + 1)
        if good:
            best = at + 1
    return best


def tier_counts(tiers: Sequence[str | None]) -> dict[str, int]:
    """Blocks by tier, nearest first."""
    counts = Counter(tiers)
    del counts[None]
    return {name: counts[name] for name in sorted((name for name in counts if name is not None), key=tier_order)}
