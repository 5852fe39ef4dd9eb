"""A publisher's slots: the (medium, group) pairs it has used, a digest for each, and what was learnt about its groups.

A slot is a small number, so that a block's residency is a bit mask. Slots and groups outlive a clear: an engine that
empties its cache keeps its layout. Plans follow from slots and groups, and are made again when either changes.
"""

from collections.abc import Iterator

from kvsync_events import BlockStored, SetDigest
from kvsync_indexer.core.groups import Group, Plan, attention_of, make_plan, medium_of
from kvsync_indexer.core.protocol import MAX_BLOCK_SIZES

Pair = tuple[str, int | None]
"""(medium, group_idx)"""


class Slots:
    """Slots, groups and plans of one publisher."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self.digests: list[SetDigest] = []
        """By slot."""
        self.groups: dict[int | None, Group] = {}
        self._numbers: dict[Pair, int] = {}
        self._plans: dict[int, Plan | None] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def find(self, medium: str | None, group: int | None) -> int | None:
        """The slot's number; None if it was never used."""
        return self._numbers.get((medium_of(medium), group))

    def of(self, event: BlockStored) -> int:
        """The slot the event stores into, with what the event says about its group."""
        pair = (medium_of(event.medium), event.group_idx)
        slot = self._numbers.get(pair)
        if slot is None:
            slot = self.add(*pair)
        if event.kv_cache_spec_kind is not None or event.kv_cache_spec_sliding_window is not None:
            group = self.groups[event.group_idx]
            kind, window = event.kv_cache_spec_kind, event.kv_cache_spec_sliding_window
            attention = group.attention if kind is None else attention_of(kind)
            window = group.window if window is None else window
            if (attention, window) != (group.attention, group.window):
                group.attention, group.window = attention, window
                self._plans.clear()
        return slot

    def add(self, medium: str, group: int | None) -> int:
        """A pair seen for the first time."""
        slot = self._numbers[medium, group] = len(self.pairs)
        self.pairs.append((medium, group))
        self.digests.append(SetDigest())
        self.groups.setdefault(group, Group())
        self._plans.clear()
        return slot

    def learn_size(self, group: int | None, block_size: int) -> bool:
        """Whether chains of this block size are kept for the group."""
        sizes = self.groups[group].sizes
        if block_size not in sizes:
            if len(sizes) >= MAX_BLOCK_SIZES:
                return False
            sizes.add(block_size)
            self._plans.clear()
        return True

    def sizes(self) -> Iterator[int]:
        """Block sizes a match has to try, ascending."""
        return iter(sorted({size for group in self.groups.values() for size in group.sizes}))

    def plan(self, block_size: int) -> Plan | None:
        """How residency is read for chains of this block size."""
        if block_size not in self._plans:
            self._plans[block_size] = make_plan(self.pairs, self.groups, block_size)
        return self._plans[block_size]
