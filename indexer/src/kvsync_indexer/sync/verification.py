"""When to ask a trusted publisher whether the last batch known here is still its last one."""

from kvsync_indexer.sync.states import SyncSettings


class Verification:
    """Finds what no later sequence number shows: a lost tail, or an idle successor. Times are monotonic seconds."""

    __slots__ = ("_after_s", "_idle_s", "_verified_at", "frame_at", "link_verified", "live_at")

    def __init__(self, settings: SyncSettings, now: float) -> None:
        self._after_s = settings.verify_after_s
        self._idle_s = settings.verify_idle_s
        self._verified_at = now
        self.frame_at = now
        """When the last live batch arrived."""
        self.live_at = now
        """When the publisher last became live, or another peer joined its endpoint."""
        self.link_verified = False
        """The present link has been checked once: batches can slip between a replay and the subscription."""

    def live(self, now: float) -> None:
        """The publisher caught up, which shows as much as a check does."""
        self.live_at = self._verified_at = now

    def peer_joined(self, now: float) -> None:
        """Another peer connected to the same endpoint: it may be another process."""
        self.link_verified = False
        self.live_at = now

    def done(self, now: float) -> None:
        """A check ended, with or without an answer."""
        self._verified_at = now
        self.link_verified = True

    def due(self, now: float) -> bool:
        """It is time for a check."""
        if not self.link_verified:
            return now - self.live_at >= self._after_s
        return now - max(self.frame_at, self._verified_at) >= self._idle_s
