"""Which slots hold which content: what a match reads.

Several engine hashes of one publisher may stand for the same content in one slot. The slot holds the content until the
last of them is removed.
"""


class Residency:
    """The slots that hold each prefix key."""

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}
        """Residency masks by prefix key; a key that no slot holds has no entry."""
        self._repeats: dict[tuple[int, int], int] = {}
        """By prefix key and slot: how many engine hashes beyond the first stand for the content."""

    def show(self, prefix_key: int, slot: int) -> None:
        """Record one more engine hash of this content in the slot."""
        mask = self.masks.get(prefix_key, 0)
        if mask >> slot & 1:
            self._repeats[prefix_key, slot] = self._repeats.get((prefix_key, slot), 0) + 1
        else:
            self.masks[prefix_key] = mask | 1 << slot

    def hide(self, prefix_key: int, slot: int) -> None:
        """Record one engine hash less; raises KeyError for a content that no slot holds."""
        more = self._repeats.pop((prefix_key, slot), 0)
        if more:
            if more > 1:
                self._repeats[prefix_key, slot] = more - 1
            return
        mask = self.masks[prefix_key] & ~(1 << slot)
        if mask:
            self.masks[prefix_key] = mask
        else:
            del self.masks[prefix_key]
