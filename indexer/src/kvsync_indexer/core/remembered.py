"""The content of blocks that were removed lately, by which hashes that come back without tokens are understood.

An offload tier may announce a block by its hash alone, after the device has dropped the block and with it what the
index knew of the hash. The last removals of a publisher are therefore kept in a ring. A snapshot does not contain it.
"""

from typing import TypeAlias

Content: TypeAlias = tuple[int, int]
"""The prefix key of a block, and the tag of its parent's key."""


class Remembered:
    """The content of the last `capacity` removals."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ring: list[tuple[int, Content]] = []
        self._next = 0
        self._places: dict[int, int] = {}

    def add(self, ident: int, content: Content) -> None:
        """Remember the content of a removed block in place of the oldest one."""
        if len(self._ring) < self._capacity:
            self._ring.append((ident, content))
        else:
            old = self._ring[self._next][0]
            if self._places[old] == self._next:
                del self._places[old]
            self._ring[self._next] = ident, content
        self._places[ident] = self._next
        self._next = (self._next + 1) % self._capacity

    def get(self, ident: int) -> Content | None:
        """The content that the block had when it was removed the last time; None if that is not remembered."""
        place = self._places.get(ident)
        return None if place is None else self._ring[place][1]
