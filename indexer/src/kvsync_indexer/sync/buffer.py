"""Live batches that wait while a replay runs.

The buffer is bounded in batches and bytes. If it is full, the oldest batches are dropped and counted: the replay in
progress most likely carries them, and if it does not, their numbers are missing afterwards and another replay brings
them.
"""

from collections.abc import Iterator


class LiveBuffer:
    """Payloads by sequence number, each kept once, iterated in order."""

    __slots__ = ("_frames", "bytes", "dropped", "max_bytes", "max_frames")

    def __init__(self, max_frames: int, max_bytes: int) -> None:
        self._frames: dict[int, bytes] = {}
        self.max_frames = max_frames
        self.max_bytes = max_bytes
        self.bytes = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._frames))

    def get(self, seq: int) -> bytes | None:
        """Return the payload held for `seq`, None if there is none."""
        return self._frames.get(seq)

    def add(self, seq: int, payload: bytes) -> None:
        """Keep a batch, unless one of its number is held; then drop the oldest ones beyond the bounds."""
        if seq in self._frames:
            return
        self._frames[seq] = payload
        self.bytes += len(payload)
        while len(self._frames) > self.max_frames or (self.bytes > self.max_bytes and len(self._frames) > 1):
            self.bytes -= len(self._frames.pop(self._oldest()))
            self.dropped += 1

    def pop(self, seq: int) -> bytes:
        """Take one batch out. Raises KeyError if it is not held."""
        payload = self._frames.pop(seq)
        self.bytes -= len(payload)
        return payload

    def first(self) -> int | None:
        """Return the lowest number held, None if the buffer is empty."""
        return min(self._frames, default=None)

    def last(self) -> int | None:
        """Return the highest number held, None if the buffer is empty."""
        return max(self._frames, default=None)

    def clear(self) -> None:
        """Drop all batches without counting them."""
        self._frames.clear()
        self.bytes = 0

    def _oldest(self) -> int:
        # Batches arrive in order unless something reorders them, so the first key is the lowest or close to it.
        return next(iter(self._frames))
