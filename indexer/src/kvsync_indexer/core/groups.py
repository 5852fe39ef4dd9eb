"""Which resident blocks count: cache groups of hybrid models, and the tier a block is reported in.

A publisher's (medium, group) pairs are its slots; a block's residency is a bit mask over them. From the groups seen so
far follows a plan a block size: full-attention groups (full, MLA, sink; a publisher that names no kind has these) must
hold every block of a match, sliding-window groups only the window before its end, groups of other kinds say nothing.
A sliding-window group that does not say its window is treated as full attention.

Blocks announced without tokens (offload events) may come without the group they belong to. While the publisher has one
group with tokens, such blocks are that group's; with several they match nothing, because nobody knows whose they are.
A group that is named on one side only (events with tokens, or those without) is no obstacle to that.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final


class Attention(IntEnum):
    """How a group's blocks take part in a match. The values are those of the snapshot."""

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
_RANKS: Final = {"GPU": 0, "CPU": 1, "CPU_PINNED": 1, "DISK": 2, "STORAGE": 2}


def attention_of(kind: str) -> Attention:
    """What vLLM's `kv_cache_spec_kind` means for a match."""
    return _KINDS.get(kind, Attention.OTHER)


def medium_of(medium: str | None) -> str:
    """Tier names are upper case; none at all is the device."""
    if medium is None:
        return "GPU"
    return medium.upper() if medium.isascii() else medium


def tier_order(medium: str) -> tuple[int, str]:
    """Nearest first: device, host, disk and shared, then the rest by name."""
    return _RANKS.get(medium, 3), medium


def group_order(group: int | None) -> int:
    """No group before group 0."""
    return -1 if group is None else group


@dataclass(slots=True)
class Group:
    """What was learnt about one cache group."""

    attention: Attention = Attention.FULL
    window: int | None = None
    sizes: set[int] = field(default_factory=set)
    """Block sizes of its events that had tokens."""


class Plan:
    """How to read residency masks for one publisher and block size."""

    def __init__(self, full: list[int], windows: list[tuple[int, int]], slots: list[tuple[int, str]]) -> None:
        """`full`: a mask a group. `windows`: (mask, blocks needed) a group. `slots`: (bit, medium), nearest first."""
        self.full = full
        self.windows = windows
        self._slots = slots
        self.verdicts = _Verdicts(self)

    def tier(self, mask: int) -> str | None:
        """The tier of a block that the full groups hold: the nearest of each group, the farthest of those."""
        worst = -1
        for wanted in self.full or [wanted for wanted, _ in self.windows]:
            for place, (bit, _) in enumerate(self._slots):
                if mask & wanted & bit:
                    worst = max(worst, place)
                    break
            else:
                if self.full:
                    return None
        return None if worst < 0 else self._slots[worst][1]


class _Verdicts(dict["int | None", "str | None"]):
    """Tier by mask, remembered: a publisher has few distinct masks. None (and the mask None) means not held."""

    def __init__(self, plan: Plan) -> None:
        super().__init__({None: None, 0: None})
        self._plan = plan

    def __missing__(self, mask: int | None) -> str | None:
        verdict = None if mask is None else self._plan.tier(mask)
        self[mask] = verdict
        return verdict


def make_plan(slots: list[tuple[str, int | None]], groups: dict[int | None, Group], block_size: int) -> Plan | None:
    """The plan for chains of this block size; None if nothing of it can match."""
    with_tokens = [name for name, group in groups.items() if group.sizes]
    full: list[int] = []
    windows: list[tuple[int, int]] = []
    for name in with_tokens:
        group = groups[name]
        if block_size not in group.sizes or group.attention is Attention.OTHER:
            continue
        mask = sum(1 << at for at, slot in enumerate(slots) if slot[1] == name)
        if len(with_tokens) == 1:
            mask |= _ownerless(slots, groups, name)
        if group.attention is Attention.WINDOW and group.window is not None:
            windows.append((mask, max(1, -(-(group.window - 1) // block_size))))
        else:
            full.append(mask)
    if not full and not windows:
        return None
    ordered = sorted((tier_order(medium), at) for at, (medium, _) in enumerate(slots))
    return Plan(full, windows, [(1 << at, slots[at][0]) for _, at in ordered])


def _ownerless(slots: list[tuple[str, int | None]], groups: dict[int | None, Group], owner: int | None) -> int:
    """Slots of full-attention groups that never had tokens and may be the owner's: one of the two has no name."""
    return sum(
        1 << at
        for at, (_, name) in enumerate(slots)
        if not groups[name].sizes and groups[name].attention is Attention.FULL and (name is None or owner is None)
    )
