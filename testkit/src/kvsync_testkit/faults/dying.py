"""Payloads that end the index's process, and what of it outlives the process: the mark of what was being applied."""

from collections.abc import Sequence

from kvsync_indexer.sync import NoGuard


class IndexDiedError(BaseException):
    """The simulated process of the index has ended. No handler for errors of the index may catch it."""


class SurvivingMark(NoGuard):
    """An `ApplyGuard` that one process hands on to the next, with the rules of `kvsync_indexer.ingest.InFlight`."""

    def __init__(self) -> None:
        self._marked: tuple[str, int, tuple[bytes, ...]] | None = None
        self.lethal: set[bytes] = set()
        """Payloads over which the process ends."""
        self.deaths = 0
        self._dead = False
        self._aside: set[tuple[str, int, bytes]] = set()
        self._single: set[tuple[str, int]] = set()

    def begin(self, publisher: str, first_seq: int, payloads: Sequence[bytes]) -> None:
        """See ApplyGuard, for this and the following."""
        self._marked = publisher, first_seq, tuple(payloads)

    def end(self) -> None:
        """Unmark, unless the process has just ended."""
        if not self._dead:
            self._marked = None

    def is_set_aside(self, publisher: str, seq: int, payload: bytes) -> bool:
        """Look among the payloads of earlier marks."""
        return (publisher, seq, payload) in self._aside

    def applies_singly(self, publisher: str, seq: int) -> bool:
        """Look among the runs of earlier marks."""
        return (publisher, seq) in self._single

    def die(self) -> None:
        """End the process."""
        self._dead = True
        self.deaths += 1
        raise IndexDiedError

    def take_over(self) -> None:
        """The next process reads the mark."""
        self._dead = False
        marked, self._marked = self._marked, None
        if marked is None:
            return
        publisher, first_seq, payloads = marked
        self._single |= {(publisher, first_seq + place) for place in range(len(payloads))}
        if len(payloads) == 1:
            self._aside.add((publisher, first_seq, payloads[0]))
