"""What the core made of one publisher's batches, and how far its cache has turned over since."""

from dataclasses import dataclass

from kvsync_events import BlockStored, decode_batch
from kvsync_indexer.core import Applied


@dataclass(slots=True)
class Totals:
    """Counts since the publisher was added; the fields up to `refused` are sums of those of `Applied`."""

    batches: int = 0
    """Payloads applied."""
    events: int = 0
    stored: int = 0
    removed: int = 0
    cleared: int = 0
    unknown_removed: int = 0
    unknown_events: int = 0
    refused: int = 0
    turnovers: int = 0
    """Times an incomplete publisher became complete because its cache had turned over."""
    block_size: int | None = None
    """Tokens per block, as the first stored event that names it says."""
    lag_s: float | None = None
    """Wall time in seconds between the making and the arrival of the last live batch."""

    def add(self, applied: Applied, payloads: tuple[bytes, ...]) -> None:
        """Count one call of the core that applied these payloads."""
        self.batches += len(payloads)
        self.events += applied.events
        self.stored += applied.stored
        self.removed += applied.removed
        self.cleared += applied.cleared
        self.unknown_removed += applied.unknown_removed
        self.unknown_events += applied.unknown_events
        self.refused += applied.refused
        if self.block_size is None and applied.stored:
            self.block_size = find_block_size(payloads)


def find_block_size(payloads: tuple[bytes, ...]) -> int | None:
    """Return the tokens per block of the first stored event that has tokens; offloaded blocks come without any."""
    for payload in payloads:
        for event in decode_batch(payload).events:
            if isinstance(event, BlockStored) and event.block_size > 0:
                return event.block_size
    return None


class Turnover:
    """Decides when an incomplete publisher has become complete without its history.

    Eviction takes the least recently used block first, and what is unknown was used before what is known. So once as
    many known blocks were evicted as are resident, what was unknown has gone, unless it is hit again and again. After a
    clear nothing unknown is left at all. Evictions of unknown blocks do not count: a full cache evicts one for every
    block that it stores, so that their number says nothing about how many are left.
    """

    __slots__ = ("_cleared", "_evicted", "_judged", "_totals")

    def __init__(self, totals: Totals) -> None:
        self._totals = totals
        self.forget()

    def forget(self) -> None:
        """The known blocks were dropped: count from here."""
        self._cleared = self._totals.cleared
        self._evicted = self._judged = self._removals()

    def moved(self) -> bool:
        """Something was evicted or cleared since the last call."""
        judged, self._judged = self._judged, self._removals()
        return self._judged != judged or self._totals.cleared != self._cleared

    def replaced(self, resident: int) -> bool:
        """What was unknown has gone; `resident` is the number of blocks known now."""
        if self._totals.cleared != self._cleared:
            return True
        return resident > 0 and self._removals() - self._evicted >= resident

    def _removals(self) -> int:
        return self._totals.removed
