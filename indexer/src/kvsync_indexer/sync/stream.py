"""What is known of one process's stream: what was applied, what waits, and what is known to be missing."""

from kvsync_indexer.sync.buffer import LiveBuffer
from kvsync_indexer.sync.outbox import Outbox
from kvsync_indexer.sync.position import Continuity, Position
from kvsync_indexer.sync.states import Counters, SyncSettings


class Stream:
    """Position and waiting batches of one incarnation."""

    __slots__ = ("_counters", "_outbox", "buffer", "highest", "position")

    def __init__(self, settings: SyncSettings, outbox: Outbox, counters: Counters) -> None:
        self._outbox = outbox
        self._counters = counters
        self.position = Position(settings.ring)
        self.buffer = LiveBuffer(settings.buffer_frames, settings.buffer_bytes)
        self.highest = -1
        """The highest sequence number known to exist, -1 for none."""

    def apply(self, seq: int, payload: bytes) -> None:
        """Hand a batch to the core."""
        self._outbox.apply(seq, payload)
        self.position.accept(seq, payload)
        self._counters.applied += 1
        self.highest = max(self.highest, seq)

    def drain(self) -> int | None:
        """Apply the waiting batches that follow on, and drop those that are applied already.

        Returns:
            The number of a waiting batch whose bytes prove that another process sent it, None if there is no such.
        """
        for seq in self.buffer:
            payload = self.buffer.get(seq)
            assert payload is not None
            continuity = self.position.judge(seq, payload)
            if continuity is Continuity.OTHER:
                return seq
            if continuity is Continuity.AHEAD:
                return None
            self.buffer.pop(seq)
            if continuity is Continuity.NEXT:
                self.apply(seq, payload)
            else:
                self._counters.duplicates += 1
        return None

    def resumes_at(self) -> int | None:
        """Return where the stream goes on after batches that exist and cannot be had; None if none are missing."""
        head = self.buffer.first()
        if head is None and self.highest >= self.position.next_seq:
            return self.highest + 1
        return head

    def forget(self) -> None:
        """Begin a new incarnation: nothing of the stream so far says anything about what follows."""
        self.position.reset()
        self.buffer.clear()
        self.highest = -1
