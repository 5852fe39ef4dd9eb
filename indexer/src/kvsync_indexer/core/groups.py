"""Which resident blocks count: cache groups of hybrid models, and the tier in which a block is reported.

A publisher's pairs of medium and group are its slots, and the residency of a block is a bit mask over them. What events
have said of the groups gives one `ResidencyRule` per block size:

- Full-attention groups (full, MLA, sink, and groups of publishers that name no kind) must hold every block of a match.
- Sliding-window groups must hold only the window before its end. A sliding-window group whose window is not known is
  treated as full attention.
- Groups of other kinds are ignored.

Events without tokens (from offload tiers) may leave out the group of their blocks. While the publisher has only one
group with tokens, such blocks belong to it; with several groups they match nothing, because their owner is not known.
The same holds if only one of the two sides, events with tokens and events without, names the group.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, TypeAlias

Slot: TypeAlias = tuple[str, int | None]
"""Medium and group index."""


class Attention(IntEnum):
    """How the blocks of a group take part in a match. The values are those of the snapshot."""

    FULL = 0
    WINDOW = 1
    OTHER = 2


_KINDS: Final = {
    "full_attention": Attention.FULL,
    "mla_attention": Attention.FULL,
    "sink_full_attention": Attention.FULL,
    "sliding_window": Attention.WINDOW,
    "sliding_window_mla": Attention.WINDOW,
}
_DISTANCES: Final = {"GPU": 0, "CPU": 1, "CPU_PINNED": 1, "DISK": 2, "STORAGE": 2}


def attention_of(kind: str) -> Attention:
    """The meaning of vLLM's `kv_cache_spec_kind`."""
    return _KINDS.get(kind, Attention.OTHER)


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


@dataclass(frozen=True, slots=True)
class WindowRule:
    """A sliding-window group as a match sees it."""

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


def make_rule(slots: list[Slot], groups: dict[int | None, Group], block_size: int) -> ResidencyRule | None:
    """The rule for chains of this block size; None if no group of this size can match."""
    with_tokens = [group_idx for group_idx, group in groups.items() if group.sizes]
    full: list[int] = []
    windows: list[WindowRule] = []
    for group_idx in with_tokens:
        group = groups[group_idx]
        if block_size not in group.sizes or group.attention is Attention.OTHER:
            continue
        mask = sum(1 << at for at, slot in enumerate(slots) if slot[1] == group_idx)
        if len(with_tokens) == 1:
            mask |= _slots_without_owner(slots, groups, group_idx)
        if group.attention is Attention.WINDOW and group.window is not None:
            windows.append(WindowRule(mask, max(1, -(-(group.window - 1) // block_size))))
        else:
            full.append(mask)
    if not full and not windows:
        return None
    ordered = sorted((tier_order(medium), at) for at, (medium, _) in enumerate(slots))
    return ResidencyRule(full, windows, [(1 << at, slots[at][0]) for _, at in ordered])


def _slots_without_owner(slots: list[Slot], groups: dict[int | None, Group], owner: int | None) -> int:
    """The slots of full-attention groups without tokens that may be the owner's: one of the two has no index."""
    return sum(
        1 << at
        for at, (_, group_idx) in enumerate(slots)
        if (group_idx is None or owner is None)
        and not groups[group_idx].sizes
        and groups[group_idx].attention is Attention.FULL
    )
