"""When to ask again for a history that was not to be had completely."""

from kvsync_indexer.sync.states import SyncSettings


class Repair:
    """The plan to complete the history of a publisher that is trusted but incomplete. Times are monotonic seconds."""

    __slots__ = ("_at", "_left", "_pause_s", "_settings")

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self.forget()

    def forget(self) -> None:
        """Start afresh for a new process."""
        self._at: float | None = None
        self._pause_s = self._settings.repair_s
        self._left = self._settings.repairs

    def due(self, now: float) -> bool:
        """It is time to ask for the whole history."""
        return self._at is not None and now >= self._at

    def plan_after_sync(self, now: float) -> None:
        """The server answered and the history is incomplete all the same: try a limited number of times."""
        if self._left and self._at is None:
            self._left -= 1
            self._at = now + self._pause_s

    def plan_after_outage(self, now: float) -> None:
        """The server could not be asked: try until it can."""
        self._at = now + self._pause_s

    def failed(self, now: float) -> None:
        """The attempt failed; wait twice as long before the next one."""
        self._pause_s = min(2 * self._pause_s, self._settings.repair_max_s)
        self._at = now + self._pause_s

    def done(self) -> None:
        """Nothing is planned any more."""
        self._at = None

    def nothing_older(self, first: int, base: int, now: float) -> None:
        """The answer begins with batch `first`, and the blocks known here begin with batch `base`, which is no newer.

        A server that has exactly these batches need not be asked again. One that begins behind them has dropped some,
        or does not send them in order: it is asked a limited number of times.
        """
        if first == base:
            self.exhausted()
        else:
            self._at = None
            self.plan_after_sync(now)

    def exhausted(self) -> None:
        """The server has no older batch than those known here: asking this process again would be useless."""
        self._at = None
        self._left = 0
