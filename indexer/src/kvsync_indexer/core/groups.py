"""Which resident blocks count: cache groups of hybrid models, and the tier in which a block is reported.

A publisher's pairs of medium and group are its slots, and the residency of a block is a bit mask over them. What events
have said of the groups gives a `Plan`, which has one `ResidencyRule` per block size. A match needs every group:

- Full-attention groups (full, MLA, sink, and groups of publishers that name no kind) must hold every block of it.
  Chunked local attention is treated the same way, which never claims too much.
- Sliding-window groups must hold only the window before its end. A sliding-window group whose window is not known is
  treated as full attention.
- All other groups are recurrent (Mamba, GDN, KDA) or not understood. They must hold the block at its end, because a
  recurrent layer keeps a state of everything before it, and engines store that state at some blocks only.

The block size of a group is the largest that it has stored with tokens. Streams of smaller blocks under the same number
(DeepSeek-V4's indexer cache: llm-d-router#2679) are resident, but are no substitute for its blocks and no obstacle.
Groups may have different block sizes. A match then ends at a multiple of all of them, as in vLLM's
`HybridKVCacheCoordinator`.

Events without tokens (from offload tiers) may leave out the group of their blocks. While the publisher has only one
group with tokens, such blocks belong to it; with several groups they match nothing, because their owner is not known.
The same holds if only one of the two sides, events with tokens and events without, names the group.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from math import lcm
from typing import Final, TypeAlias

from kvsync_indexer.core.protocol import MAX_MATCH_GROUPS, MAX_MATCH_SIZES

Slot: TypeAlias = tuple[str, int | None]
"""Medium and group index."""


class Attention(IntEnum):
    """How the blocks of a group take part in a match. The values are those of the snapshot."""

    FULL = 0
    WINDOW = 1
    RECURRENT = 2


_KINDS: Final = {
    "full_attention": Attention.FULL,
    "mla_attention": Attention.FULL,
    "sink_full_attention": Attention.FULL,
    "chunked_local_attention": Attention.FULL,
    "sliding_window": Attention.WINDOW,
    "sliding_window_mla": Attention.WINDOW,
}
_DISTANCES: Final = {"GPU": 0, "CPU": 1, "CPU_PINNED": 1, "DISK": 2, "STORAGE": 2}


def attention_of(kind: str) -> Attention:
    """The meaning of vLLM's `kv_cache_spec_kind`."""
    return _KINDS.get(kind, Attention.RECURRENT)


def medium_of(medium: str | None) -> str:
    """The name under which a medium is stored: upper case, and `GPU` where an event names none."""
    if medium is None:
        return "GPU"
    return medium.upper() if medium.isascii() else medium


def tier_order(medium: str) -> tuple[int, str]:
    """A sort key that puts the nearest tier first: device, host, disk and shared storage, then all others by name."""
    return _DISTANCES.get(medium, 3), medium


def group_order(group: int | None) -> int:
    """A sort key that puts blocks without a group before group 0."""
    return -1 if group is None else group


@dataclass(slots=True)
class Group:
    """What a publisher's events have said about one cache group."""

    attention: Attention = Attention.FULL
    window: int | None = None
    """Tokens of the sliding window, if an event named them."""
    sizes: set[int] = field(default_factory=set)
    """Block sizes of the events that carried tokens."""

    @property
    def block_size(self) -> int | None:
        """The block size that counts; None while no event carried tokens."""
        return max(self.sizes) if self.sizes else None


@dataclass(frozen=True, slots=True)
class WindowRule:
    """A sliding-window or recurrent group as a match sees it."""

    mask: int
    """The slots of the group, one bit each."""
    needed: int
    """Blocks that must be resident before the end of a match."""


class ResidencyRule:
    """How residency masks are read for one publisher and one block size."""

    def __init__(self, full: list[int], windows: list[WindowRule], slots: list[tuple[int, str]]) -> None:
        """`full` has one mask per full-attention group; `slots` are the bit and the medium of each, nearest first."""
        self.full = full
        self.windows = windows
        self.tiers = _TierByMask(self)
        self._slots = slots

    def tier(self, mask: int) -> str | None:
        """The tier of a block: the nearest of each group, and the farthest of those; None if no group holds it."""
        farthest = -1
        for wanted in self.full or [window.mask for window in self.windows]:
            for at, (bit, _) in enumerate(self._slots):
                if mask & wanted & bit:
                    farthest = max(farthest, at)
                    break
            else:
                if self.full:
                    return None
        return None if farthest < 0 else self._slots[farthest][1]


class _TierByMask(dict["int | None", "str | None"]):
    """The results of `tier`, remembered, because a publisher has few distinct masks. The mask None stands for 0."""

    def __init__(self, rule: ResidencyRule) -> None:
        super().__init__({None: None, 0: None})
        self._rule = rule

    def __missing__(self, mask: int | None) -> str | None:
        tier = None if mask is None else self._rule.tier(mask)
        self[mask] = tier
        return tier


@dataclass(frozen=True, slots=True)
class Plan:
    """How the blocks of one publisher are matched."""

    rules: list[tuple[int, ResidencyRule]]
    """By block size, ascending; never empty."""
    alignment: int
    """A match ends at a multiple of this many tokens."""
    block_size: int
    """The block size in which a match is reported: the largest of a full-attention group, or else of any group."""


def has_too_many_groups(groups: dict[int | None, Group]) -> bool:
    """Whether the groups exceed what one publisher may cost a match, so that it matches nothing."""
    sizes = [group.block_size for group in groups.values() if group.sizes]
    return len(sizes) > MAX_MATCH_GROUPS or len(set(sizes)) > MAX_MATCH_SIZES


def make_plan(slots: list[Slot], groups: dict[int | None, Group]) -> Plan | None:
    """The plan of a publisher; None if nothing can match."""
    sizes = sorted({size for group in groups.values() if (size := group.block_size) is not None})
    if not sizes or has_too_many_groups(groups):
        return None
    masks = dict.fromkeys(groups, 0)
    for at, (_, group_idx) in enumerate(slots):
        masks[group_idx] |= 1 << at
    ordered = [(1 << at, slots[at][0]) for _, at in sorted((tier_order(slot[0]), at) for at, slot in enumerate(slots))]
    rules = [(size, _make_rule(size, groups, masks, ordered)) for size in sizes]
    full = [size for size, rule in rules if rule.full]
    return Plan(rules, lcm(*sizes), max(full or sizes))


def _make_rule(
    block_size: int, groups: dict[int | None, Group], masks: dict[int | None, int], ordered: list[tuple[int, str]]
) -> ResidencyRule:
    with_tokens = [group_idx for group_idx, group in groups.items() if group.sizes]
    full: list[int] = []
    windows: list[WindowRule] = []
    for group_idx in with_tokens:
        group = groups[group_idx]
        if group.block_size != block_size:
            continue
        mask = masks[group_idx]
        if len(with_tokens) == 1:
            mask |= _masks_without_owner(masks, groups, group_idx)
        if group.attention is Attention.WINDOW and group.window is not None:
            windows.append(WindowRule(mask, max(1, -(-(group.window - 1) // block_size))))
        elif group.attention is Attention.RECURRENT:
            windows.append(WindowRule(mask, 1))
        else:
            full.append(mask)
    return ResidencyRule(full, windows, ordered)


def _masks_without_owner(masks: dict[int | None, int], groups: dict[int | None, Group], owner: int | None) -> int:
    """The slots of full-attention groups without tokens that may be the owner's: one of the two has no index."""
    found = 0
    for group_idx, mask in masks.items():
        group = groups[group_idx]
        if (group_idx is None or owner is None) and not group.sizes and group.attention is Attention.FULL:
            found |= mask
    return found
