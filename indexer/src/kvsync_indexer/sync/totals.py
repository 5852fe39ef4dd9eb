"""What the core made of one publisher's batches."""

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
    set_aside: int = 0
    """Times that a payload was left out because an earlier process of the index ended while it applied it."""
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
