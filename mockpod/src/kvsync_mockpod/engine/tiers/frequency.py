"""How often a block was used, estimated in bounded memory: a count-min sketch with conservative update and ageing.

Source: Einziger, Friedman, Manes, "TinyLFU: A Highly Efficient Cache Admission Policy" (2017). Between two halvings,
which happen after ten uses per counter of a row, an estimate is never below the true count (which saturates at 255),
and with N uses in all it exceeds it by more than e * N / size with a probability of at most e ** -4, which is 1.8 %
(Cormode, Muthukrishnan, "An Improved Data Stream Summary", 2005). N is at most ten times the size, so that the excess
is at most 27 in 98.2 % of all cases however long the sketch is used, and far less for skewed or sparse traffic.
"""

from enum import Enum
from typing import Final

_ROWS: Final = 4
_MAX_COUNT: Final = 255
_USES_PER_COUNTER: Final = 10


class TrackerSize(Enum):
    """Counters per row of the sketch; choose at least the number of blocks that are told apart."""

    SMALL = 1 << 12
    MEDIUM = 1 << 16
    LARGE = 1 << 20


class FrequencyTracker:
    """Counts uses of block hashes in `4 * size` bytes."""

    def __init__(self, size: TrackerSize = TrackerSize.SMALL) -> None:
        self.size = size
        self._mask = size.value - 1
        self._rows = [bytearray(size.value) for _ in range(_ROWS)]
        self._uses = 0

    def touch(self, block_hash: bytes) -> None:
        """Count one use."""
        slots = self._slots(block_hash)
        least = min(row[slot] for row, slot in zip(self._rows, slots, strict=True))
        if least < _MAX_COUNT:
            for row, slot in zip(self._rows, slots, strict=True):
                row[slot] = max(row[slot], least + 1)
        self._uses += 1
        if self._uses >= _USES_PER_COUNTER * self.size.value:
            self._halve()

    def count(self, block_hash: bytes) -> int:
        """The estimated number of uses, 0 to 255."""
        return min(row[slot] for row, slot in zip(self._rows, self._slots(block_hash), strict=True))

    def _slots(self, block_hash: bytes) -> list[int]:
        # A block hash is a digest already: slices of it are independent hashes.
        words = block_hash.ljust(4 * _ROWS, b"\0")
        return [int.from_bytes(words[4 * i : 4 * i + 4], "big") & self._mask for i in range(_ROWS)]

    def _halve(self) -> None:
        half = bytes(count // 2 for count in range(256))
        self._rows = [row.translate(half) for row in self._rows]
        self._uses //= 2
