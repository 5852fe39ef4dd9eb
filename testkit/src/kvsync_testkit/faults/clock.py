"""The clock of a simulation, in which the process of the index may die in any callback."""

from collections.abc import Callable

from kvsync_testkit.clock import Timer, VirtualClock
from kvsync_testkit.faults.dying import IndexDiedError


class SimulationClock(VirtualClock):
    """A virtual clock that survives the death of the index."""

    def __init__(self) -> None:
        super().__init__()
        self.index_died: Callable[[], None] | None = None
        """Called when a callback has ended the process of the index."""

    def fire(self, timer: Timer) -> None:
        """Call a timer that is due."""
        try:
            timer.callback()
        except IndexDiedError:
            if self.index_died is None:
                raise
            self.index_died()
