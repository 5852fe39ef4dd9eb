"""The connection to a publisher: its number, whether it is up, and when to try again after it was lost."""

from kvsync_indexer.sync.states import SyncSettings


class Connection:
    """One link after another, each with a number of its own. Times are monotonic seconds."""

    __slots__ = ("_maximum_s", "_minimum_s", "_pause_s", "_retry_at", "first_seq", "link", "up")

    def __init__(self, settings: SyncSettings) -> None:
        self._minimum_s = self._pause_s = settings.reconnect_s
        self._maximum_s = settings.reconnect_max_s
        self._retry_at: float | None = None
        self.link = 0
        """The number that frames and connection changes must carry to count."""
        self.up = False
        self.first_seq = 0
        """The sequence number that was expected next when the link came up."""

    def renew(self) -> None:
        """Abandon the present link, and any retry: the next one has another number."""
        self.link += 1
        self.up = False
        self._retry_at = None

    def established(self, next_seq: int) -> None:
        """Note that the link is up."""
        self.up = True
        self.first_seq = next_seq

    def lost(self, now: float, live_s: float) -> None:
        """Abandon the link and plan the next one; the pause doubles unless the publisher had been live for long."""
        self.renew()
        if live_s > self._maximum_s:
            self._pause_s = self._minimum_s
        self._retry_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, self._maximum_s)

    def retry_due(self, now: float) -> bool:
        """Return True once when it is time to open the next link."""
        if self._retry_at is None or now < self._retry_at:
            return False
        self._retry_at = None
        return True
