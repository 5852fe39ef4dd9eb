"""When to ask a publisher whether the last batch known here is still its last one, and what such checks have shown.

A check that finds batches is a bad sign: they should have arrived live. If they do not arrive live soon afterwards, the
publisher's messages are lost on the way without a trace, because its topic is another one than the index subscribes to,
or because something drops them. One such check may have found a lost tail; after two in a row the publisher is *deaf*:
only checks bring its batches, so that what is known of it is as old as the last check.
"""

from kvsync_indexer.sync.states import SyncSettings

DEAF_AFTER = 2
"""Checks in a row that found batches, while no live batch arrived."""


class Verification:
    """Finds what no later sequence number shows: a lost tail, or an idle successor. Times are monotonic seconds."""

    __slots__ = (
        "_after_s", "_doubt_s", "_finds", "_found_at", "_found_upto", "_idle_s", "_pause_s", "_unheard", "_verified_at",
        "_was_deaf", "frame_at", "link_verified", "live_at",
    )  # fmt: skip

    def __init__(self, settings: SyncSettings, now: float) -> None:
        self._after_s = settings.verify_after_s
        self._idle_s = settings.verify_idle_s
        self._doubt_s = min(settings.verify_doubt_s, settings.verify_idle_s)
        self._verified_at = now
        self.frame_at = now
        """When the last live batch arrived."""
        self.live_at = now
        """When the publisher last became live, or another peer joined its endpoint."""
        self.link_verified = False
        """The present link has been checked once: batches can slip between a replay and the subscription."""
        self.forget()

    def forget(self) -> None:
        """Begin a new incarnation: what earlier checks found says nothing about it."""
        self._finds = self._unheard = 0
        self._was_deaf = False
        self._found_upto = -1
        self._found_at = 0.0
        self._pause_s = self._doubt_s

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
        if self._finds and not self._was_deaf:
            self._pause_s = min(2 * self._pause_s, self._idle_s)

    def due(self, now: float) -> bool:
        """It is time for a check."""
        if self._finds:
            return now - self._verified_at >= self._pause_s
        if not self.link_verified:
            return now - self.live_at >= self._after_s
        return now - max(self.frame_at, self._verified_at) >= self._idle_s

    # -- what checks found ----------------------------------------------------------------------------------------

    @property
    def doubtful(self) -> bool:
        """The last check that found anything was not followed by a live batch."""
        return self._finds > 0

    @property
    def deaf(self) -> bool:
        """Only checks bring the publisher's batches."""
        return self._finds >= DEAF_AFTER

    def found(self, batches: int, last_seq: int, now: float) -> None:
        """A check found batches up to `last_seq`, which may still arrive live; look again soon."""
        self._finds += 1
        self._was_deaf = self._was_deaf or self.deaf
        self._unheard += batches
        self._found_upto = last_seq
        self._found_at = now
        self._pause_s = self._doubt_s

    def heard(self, seq: int) -> int:
        """A live batch arrived: live batches are not lost, or not any more.

        Returns:
            The number of batches that are now known to have been missed live: a batch behind those that a check found
            shows that they will not come, because a connection keeps the order.
        """
        if not self._finds:
            return 0
        if seq <= self._found_upto and self._unheard > 1:
            self._unheard -= 1
            return 0
        missed = self._unheard if seq > self._found_upto else 0
        self.forget()
        return missed

    def give_up_waiting(self) -> int:
        """Return how many batches that checks found have not arrived live by now; each is returned once."""
        missed, self._unheard = self._unheard, 0
        return missed

    def quiet(self, now: float) -> bool:
        """Checks have found nothing for as long as a healthy publisher is left alone between two of them."""
        return now - self._found_at >= self._idle_s

    def settle(self) -> None:
        """Take a deaf publisher that is quiet for one in sync until the next find; checks stay as frequent."""
        self._finds = DEAF_AFTER - 1
