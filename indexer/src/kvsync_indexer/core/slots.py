"""A publisher's slots (the pairs of medium and group that it has used), and what it said of its groups.

A slot is a small number, so that the residency of a block is a bit mask. Slots and groups survive a clear, because an
engine that empties its cache keeps its layout. The plan of matches follows from slots and groups. It is made again at
the first match after either changed, so that any number of changes between two matches costs the same.

Chains of different block sizes have different content, although engines give the block of a large size the hash of the
small block at its end. A block is therefore known by its hash and by the number of its block size (`block_id`).
"""

from collections.abc import Iterator

from kvsync_events import BlockStored, SetDigest
from kvsync_indexer.core.groups import (
    Group,
    Plan,
    Slot,
    attention_of,
    has_too_many_groups,
    make_plan,
    medium_of,
)
from kvsync_indexer.core.protocol import MAX_BLOCK_SIZES, MAX_CHAIN_SIZES


class Slots:
    """The slots, groups and block sizes of one publisher."""

    def __init__(self) -> None:
        self.by_number: list[Slot] = []
        self.digests: list[SetDigest] = []
        """By slot number."""
        self.members: list[set[int]] = []
        """By slot number: the ids of the blocks in the slot."""
        self.groups: dict[int | None, Group] = {}
        self.sizes: list[int] = []
        """Block sizes of chains, in the order in which they came; a position is the number of a size."""
        self.work = 0
        """Slots and groups that were read to make plans."""
        self._numbers: dict[Slot, int] = {}
        self._plan: Plan | None = None
        self._stale = False

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
                self._stale = True
        return number

    def add(self, medium: str, group: int | None) -> int:
        """Add a slot that is used for the first time, and return its number."""
        number = self._numbers[medium, group] = len(self.by_number)
        self.by_number.append((medium, group))
        self.digests.append(SetDigest())
        self.members.append(set())
        self.groups.setdefault(group, Group())
        self._stale = True
        return number

    def drop_blocks(self) -> None:
        """Empty every slot."""
        for digest in self.digests:
            digest.clear()
        self.members = [set() for _ in self.by_number]

    def learn_size(self, group: int | None, block_size: int) -> int | None:
        """The number of this block size; None if the group or the publisher uses too many sizes already."""
        sizes = self.groups[group].sizes
        if block_size in sizes:
            return self.sizes.index(block_size)
        if len(sizes) >= MAX_BLOCK_SIZES:
            return None
        if block_size not in self.sizes:
            if len(self.sizes) >= MAX_CHAIN_SIZES:
                return None
            self.sizes.append(block_size)
        sizes.add(block_size)
        self._stale = True
        return self.sizes.index(block_size)

    def size_of(self, group: int | None) -> int:
        """The number of the block size of a group's blocks, for events that do not tell; 0 if it is not known.

        A group that never had tokens may be the publisher's only group that had some, if one of the two has no index.
        """
        size = self.groups[group].block_size
        if size is None:
            owners = [(index, owner) for index, owner in self.groups.items() if owner.sizes]
            if len(owners) == 1 and (group is None or owners[0][0] is None):
                size = owners[0][1].block_size
        return 0 if size is None else self.sizes.index(size)

    def sizes_of(self, slot: int) -> Iterator[int]:
        """The numbers of block sizes that a hash in this slot may have, the one that counts first."""
        if len(self.sizes) <= 1:
            yield 0
            return
        first = self.size_of(self.by_number[slot][1])
        yield first
        yield from (number for number in range(len(self.sizes)) if number != first)

    def plan(self) -> Plan | None:
        """How the publisher's blocks are matched; None if they cannot match."""
        if self._stale:
            self._stale = False
            self._plan = make_plan(self.by_number, self.groups)
            self.work += len(self.by_number) + len(self.groups)
        return self._plan

    def has_too_many_groups(self) -> bool:
        """Whether the publisher matches nothing because it has too many groups or block sizes."""
        return has_too_many_groups(self.groups)
