"""Which slots hold a content: what a match reads.

Several engine hashes of one publisher may stand for the same content in one slot; it stays held until the last goes.
"""


class Residency:
    """Own key -> slots that hold it."""

    def __init__(self) -> None:
        self.masks: dict[int, int] = {}
        """Own key -> mask of slots; a key that nobody holds is not there."""
        self._repeats: dict[tuple[int, int], int] = {}
        """(own key, slot) -> engine hashes beyond the first that stand for it."""

    def show(self, key: int, slot: int) -> None:
        """One more engine hash with this content is in the slot."""
        mask = self.masks.get(key, 0)
        if mask >> slot & 1:
            self._repeats[key, slot] = self._repeats.get((key, slot), 0) + 1
        else:
            self.masks[key] = mask | 1 << slot

    def hide(self, key: int, slot: int) -> None:
        """One fewer. Raises KeyError for a content that is not there."""
        more = self._repeats.pop((key, slot), 0)
        if more:
            if more > 1:
                self._repeats[key, slot] = more - 1
            return
        mask = self.masks[key] & ~(1 << slot)
        if mask:
            self.masks[key] = mask
        else:
            del self.masks[key]
