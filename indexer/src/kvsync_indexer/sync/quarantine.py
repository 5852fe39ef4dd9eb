"""When a publisher that sends nonsense is left alone, and for how long."""

from collections import deque

from kvsync_indexer.sync.states import SyncSettings


class Quarantine:
    """Back-off after what cannot be decoded or believed. Times are monotonic seconds."""

    __slots__ = ("_pause_s", "_restarts", "_settings", "_skipped", "_until")

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._until: float | None = None
        self._pause_s = settings.quarantine_s
        self._skipped = 0
        self._restarts: deque[float] = deque(maxlen=settings.flap_limit)

    @property
    def active(self) -> bool:
        """The publisher's sockets are closed at present."""
        return self._until is not None

    def impose(self, now: float, *, longest: bool = False) -> float:
        """Begin a quarantine and return its length in seconds; the next one will be twice as long."""
        length_s = self._settings.quarantine_max_s if longest else self._pause_s
        self._until = now + length_s
        self._skipped = 0
        self._pause_s = min(2 * length_s, self._settings.quarantine_max_s)
        return length_s

    def over(self, now: float) -> bool:
        """Return True once when the quarantine has ended."""
        if self._until is None or now < self._until:
            return False
        self._until = None
        return True

    def lift(self) -> None:
        """Forget past offences: they were those of another process."""
        self._until = None
        self._pause_s = self._settings.quarantine_s

    def credit(self, live_s: float) -> None:
        """Forget earlier quarantines after `quarantine_reset_s` of good behaviour."""
        if live_s > self._settings.quarantine_reset_s:
            self._pause_s = self._settings.quarantine_s

    def may_skip(self) -> bool:
        """Count an undecodable batch of a replay; False once a resync has had too many of them."""
        if self._skipped >= self._settings.poison_limit:
            return False
        self._skipped += 1
        return True

    def synced(self) -> None:
        """A resync has ended well: the next one may skip as many batches again."""
        self._skipped = 0

    def flaps(self, now: float) -> bool:
        """Count a restart seen in the stream; True if there were too many within `flap_window_s`."""
        full = len(self._restarts) == self._settings.flap_limit
        if full and now - self._restarts[0] < self._settings.flap_window_s:
            self._restarts.clear()
            return True
        self._restarts.append(now)
        return False
