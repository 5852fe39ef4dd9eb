"""Decides when an incomplete publisher has become complete without its history.

Nobody says which blocks an engine held before the first batch that is known here. Two things show that it still holds
such blocks: a removal of a block that was never announced, and a block that waits for its parent, because the parent is
resident in the engine (it would have been evicted after its child). A prompt that every request begins with is hit
again and again and never evicted, so its blocks show only in that second way.

Eviction takes the least recently used block first. So once as many different blocks were evicted as are resident, while
neither sign was seen, what was unknown has gone. That is an assumption: a sign that comes later takes it back. After a
clear of the whole cache nothing unknown is left at all, whatever comes later.
"""

from collections.abc import Iterable, Iterator

from kvsync_events import AllBlocksCleared, BlockRemoved, Event, decode_batch, digest_key
from kvsync_indexer.core import Applied

_SAMPLE = 4096
"""Hashes that are kept to count different ones."""
_SPREAD = 0x9E3779B97F4A7C15
"""An odd multiplier that spreads the bits of hashes which an engine may have chosen badly."""


class DistinctCount:
    """Counts different 64-bit hashes in bounded memory: exactly up to 4,096 of them, and within a few percent above.

    Only hashes that fall into a share of 1 in 2**level are kept, and the level rises whenever there are too many.
    """

    __slots__ = ("_kept", "_level")

    def __init__(self) -> None:
        self._kept: set[int] = set()
        self._level = 0

    def __len__(self) -> int:
        return len(self._kept) << self._level

    def add(self, hashed: int) -> None:
        """Count a hash, unless it was counted before."""
        spread = (hashed * _SPREAD & (1 << 64) - 1) >> 16
        if spread & (1 << self._level) - 1:
            return
        self._kept.add(spread)
        while len(self._kept) > _SAMPLE:
            self._level += 1
            mask = (1 << self._level) - 1
            self._kept = {each for each in self._kept if not each & mask}

    def clear(self) -> None:
        """Begin again."""
        self._kept.clear()
        self._level = 0


class Turnover:
    """Watches what is applied to a publisher that is incomplete, or that was assumed to be complete."""

    __slots__ = ("_cleared", "_evicted", "_moved", "assumed")

    def __init__(self) -> None:
        self._evicted = DistinctCount()
        self.assumed = False
        """The publisher is called complete because its cache has turned over; later signs can take that back."""
        self.forget()

    def forget(self) -> None:
        """The known blocks were dropped: count from here."""
        self._evicted.clear()
        self._cleared = self._moved = False
        self.assumed = False

    def watch(self, applied: Applied, payloads: Iterable[bytes], orphans: int) -> None:
        """Take in what was applied; `orphans` blocks wait for their parent or their tokens afterwards.

        The payloads are decoded only if they can matter.
        """
        contradicted = orphans > 0 or applied.unknown_removed > 0
        if contradicted:
            self._evicted.clear()
        if not applied.cleared and (contradicted or not applied.removed):
            return
        for event in _events(payloads):
            if isinstance(event, AllBlocksCleared):
                self._cleared = self._cleared or event.medium is None
            elif isinstance(event, BlockRemoved) and not contradicted:
                for block_hash in event.block_hashes:
                    self._evicted.add(digest_key(block_hash))
        self._moved = True

    def contradicts(self, applied: Applied, orphans: int) -> bool:
        """What was applied shows that the assumption was wrong; it is taken back."""
        if not self.assumed or not (orphans or applied.unknown_removed):
            return False
        self.forget()
        return True

    def replaced(self, resident: int) -> bool:
        """What was unknown has gone; `resident` is the number of blocks known now."""
        self._moved = False
        if self._cleared:
            return True
        return 0 < resident <= len(self._evicted)

    def assume(self) -> None:
        """The publisher is called complete from now on."""
        assumed = not self._cleared
        self.forget()
        self.assumed = assumed

    @property
    def moved(self) -> bool:
        """Something was evicted or cleared since `replaced` was asked last."""
        return self._moved


def _events(payloads: Iterable[bytes]) -> Iterator[Event]:
    for payload in payloads:
        yield from decode_batch(payload).events
