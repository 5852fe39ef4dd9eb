"""How much of a prompt one publisher holds under its plan.

With full-attention groups only, a match is the longest prefix of which every such group holds every block. A
sliding-window or recurrent group restricts where a match may end: at a block before which its window is resident (from
the start of the chain, if the match is shorter than the window). The furthest such end counts, so a longer query never
matches less. Groups of different block sizes must agree on the end.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TypeAlias

from kvsync_indexer.core.groups import Plan, ResidencyRule, tier_order

Masks: TypeAlias = dict[int, int]
"""Residency masks by prefix key."""
KeysBySize: TypeAlias = Callable[[int], Sequence[int]]
"""The prefix keys of a prompt in blocks of some size."""


def matched_tiers(plan: Plan, masks: Masks, keys_of: KeysBySize) -> list[str | None]:
    """The tier of each matched block of `plan.block_size`, or None for a block outside the windows of all groups."""
    if len(plan.rules) > 1:
        return _tiers_over_sizes(plan, masks, keys_of)
    size, rule = plan.rules[0]
    tiers, keys = rule.tiers, keys_of(size)
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


def _tiers_over_sizes(plan: Plan, masks: Masks, keys_of: KeysBySize) -> list[str | None]:
    """As `matched_tiers`, for groups of different block sizes."""
    limit = min(_full_tokens(rule, masks, keys_of(size), size) for size, rule in plan.rules)
    limit -= limit % plan.alignment
    ends = [
        _ends(rule, [masks.get(key, 0) for key in keys_of(size)[: limit // size]], plan.alignment // size)
        for size, rule in plan.rules
        if rule.windows
    ]
    units = limit // plan.alignment
    while units and not all(end[units - 1] for end in ends):
        units -= 1
    count = units * plan.alignment // plan.block_size
    tiers = dict(plan.rules)[plan.block_size].tiers
    return [tiers[masks.get(key)] for key in keys_of(plan.block_size)[:count]]


def _full_tokens(rule: ResidencyRule, masks: Masks, keys: Sequence[int], size: int) -> int:
    """The tokens of the prompt of which every full-attention group of this block size holds every block."""
    if not rule.full:
        return len(keys) * size
    held = takewhile(lambda mask: all(mask & full for full in rule.full), (masks.get(key, 0) for key in keys))
    return sum(1 for _ in held) * size


def _ends(rule: ResidencyRule, masks: list[int], step: int) -> list[bool]:
    """For every `step` blocks: whether the windows of every group are resident at their end."""
    runs = [0] * len(rule.windows)
    ends = []
    for at, mask in enumerate(masks):
        for index, window in enumerate(rule.windows):
            runs[index] = runs[index] + 1 if mask & window.mask else 0
        if (at + 1) % step == 0:
            ends.append(all(run >= min(w.needed, at + 1) for run, w in zip(runs, rule.windows, strict=True)))
    return ends


def tier_counts(tiers: Sequence[str | None]) -> dict[str, int]:
    """Blocks by tier, nearest first."""
    counts = Counter(tiers)
    del counts[None]
    return {name: counts[name] for name in sorted((name for name in counts if name is not None), key=tier_order)}
