"""The append-only transition log: what happened to every block, numbered from 0.

Checkers compare it with the published events. It is written by the block tables themselves, and the engine never reads
it. Entries are stored per run of blocks and expanded when they are read; the oldest are dropped when there are more
than `capacity`.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence

from kvsync_mockpod.engine.api import LogEntry

_Run = tuple[int, int, str, Sequence[bytes | None], bytes | None, str]
"""First number, step, kind, hashes, parent of the first hash, medium."""


class TransitionLog:
    """Numbered block transitions; `since(n)` reads from number n on."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.next = 0
        """Number of the next entry, which is also the number of entries ever written."""
        self.first = 0
        """Number of the oldest entry that is still kept."""
        self._runs: deque[_Run] = deque()

    def append(
        self, step: int, kind: str, hashes: Sequence[bytes | None], parent: bytes | None = None, medium: str = "GPU"
    ) -> None:
        """Add transitions of consecutive blocks; for `stored`, each hash is the parent of the next."""
        if not self.capacity:
            return
        self._runs.append((self.next, step, kind, hashes, parent, medium))
        self.next += len(hashes)
        while self.next - self._runs[0][0] - len(self._runs[0][3]) >= self.capacity:
            self._runs.popleft()
        self.first = self._runs[0][0]

    def since(self, n: int = 0) -> Iterator[LogEntry]:
        """Entries from number `n` on, or from the oldest one kept, in order."""
        runs = list(self._runs)
        start = max(bisect_right(runs, n, key=lambda run: run[0]) - 1, 0)
        for number, step, kind, hashes, parent, medium in runs[start:]:
            group = None if kind == "cleared" else 0
            for h in hashes:
                if number >= n:
                    yield LogEntry(number, step, kind, h, parent, medium, group)  # type: ignore[arg-type]
                if kind == "stored":
                    parent = h
                number += 1

    def __len__(self) -> int:
        return self.next - self.first
