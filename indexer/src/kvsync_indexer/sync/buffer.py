"""Live frames that wait while a replay runs.

Bounded in frames and bytes. When it is full the OLDEST frames go: the replay in progress most likely carries them
anyway; where it does not, their sequence numbers are missing afterwards and a further replay fetches them. Every
dropped frame is counted.
"""

from collections.abc import Iterator


class LiveBuffer:
    """Frames by sequence number, kept once, handed out in order."""

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
        """The payload held for `seq`."""
        return self._frames.get(seq)

    def add(self, seq: int, payload: bytes) -> None:
        """Keep a frame (the first with its number wins), then drop the oldest ones over the bounds."""
        if seq in self._frames:
            return
        self._frames[seq] = payload
        self.bytes += len(payload)
        while len(self._frames) > self.max_frames or (self.bytes > self.max_bytes and len(self._frames) > 1):
            self.bytes -= len(self._frames.pop(self._oldest()))
            self.dropped += 1

    def pop(self, seq: int) -> bytes:
        """Take one frame out. Raises KeyError when it is not there."""
        payload = self._frames.pop(seq)
        self.bytes -= len(payload)
        return payload

    def first(self) -> int | None:
        """The lowest sequence number held."""
        return min(self._frames, default=None)

    def last(self) -> int | None:
        """The highest sequence number held."""
        return max(self._frames, default=None)

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()
        self.bytes = 0

    def _oldest(self) -> int:
        # Frames arrive in order but for injected reordering, so the first key is the lowest or close to it.
        return next(iter(self._frames))
