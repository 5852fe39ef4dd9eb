"""A publisher's slots (the pairs of medium and group that it has used), and what it said of its groups.

A slot is a small number, so that the residency of a block is a bit mask. Slots and groups survive a clear, because an
engine that empties its cache keeps its layout. Rules follow from slots and groups, and are made again when either
changes.
"""

from collections.abc import Iterator

from kvsync_events import BlockStored, SetDigest
from kvsync_indexer.core.groups import Group, ResidencyRule, Slot, attention_of, make_rule, medium_of
from kvsync_indexer.core.protocol import MAX_BLOCK_SIZES


class Slots:
    """The slots, groups and rules of one publisher."""

    def __init__(self) -> None:
        self.by_number: list[Slot] = []
        self.digests: list[SetDigest] = []
        """By slot number."""
        self.groups: dict[int | None, Group] = {}
        self._numbers: dict[Slot, int] = {}
        self._rules: dict[int, ResidencyRule | None] = {}

    def __len__(self) -> int:
        return len(self.by_number)

    def find(self, medium: str | None, group: int | None) -> int | None:
        """The number of the slot; None if it was never used."""
        return self._numbers.get((medium_of(medium), group))

    def learn(self, event: BlockStored) -> int:
        """The number of the slot that the event stores into; records what the event says of its group."""
        slot = (medium_of(event.medium), event.group_idx)
        number = self._numbers.get(slot)
        if number is None:
            number = self.add(*slot)
        if event.kv_cache_spec_kind is not None or event.kv_cache_spec_sliding_window is not None:
            group = self.groups[event.group_idx]
            kind, window = event.kv_cache_spec_kind, event.kv_cache_spec_sliding_window
            attention = group.attention if kind is None else attention_of(kind)
            window = group.window if window is None else window
            if (attention, window) != (group.attention, group.window):
                group.attention, group.window = attention, window
                self._rules.clear()
        return number

    def add(self, medium: str, group: int | None) -> int:
        """Add a slot that is used for the first time, and return its number."""
        number = self._numbers[medium, group] = len(self.by_number)
        self.by_number.append((medium, group))
        self.digests.append(SetDigest())
        self.groups.setdefault(group, Group())
        self._rules.clear()
        return number

    def learn_size(self, group: int | None, block_size: int) -> bool:
        """Whether chains of this block size are kept for the group; False if it uses too many sizes already."""
        sizes = self.groups[group].sizes
        if block_size not in sizes:
            if len(sizes) >= MAX_BLOCK_SIZES:
                return False
            sizes.add(block_size)
            self._rules.clear()
        return True

    def sizes(self) -> Iterator[int]:
        """The block sizes that a match has to try, ascending."""
        return iter(sorted({size for group in self.groups.values() for size in group.sizes}))

    def rule(self, block_size: int) -> ResidencyRule | None:
        """How residency is read for chains of this block size; None if they cannot match."""
        if block_size not in self._rules:
            self._rules[block_size] = make_rule(self.by_number, self.groups, block_size)
        return self._rules[block_size]
