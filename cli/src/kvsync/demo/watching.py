"""Samples the index during a replay: the state, lag and blocks of each publisher, and how it sees a restart."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kvsync_indexer.api import PublisherRow
from kvsync_indexer.client import AsyncIndexClient, IndexClientError

PERIOD_S = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """The publishers of the index at one moment; `at_s` is in seconds since the replay began."""

    at_s: float
    publishers: tuple[PublisherRow, ...]


@dataclass(slots=True)
class Restart:
    """The kill and the restart of one engine as the index sees them.

    Times are in seconds since the replay began, and None if the event has not happened.
    """

    publisher: str
    epoch_before: tuple[str | int | None, int]
    blocks_before: int
    killed_s: float
    detected_s: float | None = None
    detected_as: str = ""
    started_s: float | None = None
    live_s: float | None = None
    blocks_after: int = 0

    def observe(self, at_s: float, row: PublisherRow | None) -> None:
        """Update the times from one sample of the publisher; `row` is None if the index does not list it."""
        new_epoch = row is not None and (row.epoch, row.incarnation) != self.epoch_before
        if self.detected_s is None and (row is None or row.state != "live" or new_epoch):
            self.detected_s = at_s
            self.detected_as = row.state if row is not None else "removed"
        back = self.started_s is not None and row is not None and row.state == "live"
        if back and row is not None and self.detected_s is not None:
            if self.live_s is None:
                self.live_s = at_s
            self.blocks_after = row.blocks


@dataclass(slots=True)
class Watcher:
    """Samples the index periodically, and reports changes of state to `on_change(name, before, after)`."""

    index: AsyncIndexClient
    clock: Callable[[], float] = time.monotonic
    on_change: Callable[[str, str, str], None] = lambda _name, _before, _after: None
    samples: list[Sample] = field(default_factory=list)
    restart: Restart | None = None
    misses: int = 0
    _begun: float = 0.0
    _states: dict[str, str] = field(default_factory=dict)

    @property
    def now_s(self) -> float:
        """Seconds since `run` began."""
        return self.clock() - self._begun

    def row(self, name: str) -> PublisherRow | None:
        """Return the publisher's row of the last sample, or None."""
        rows = self.samples[-1].publishers if self.samples else ()
        return next((row for row in rows if row.name == name), None)

    async def run(self) -> None:
        """Sample until cancelled. Failed requests to the index are counted in `misses`."""
        self._begun = self.clock()
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        """Take one sample."""
        try:
            rows = await self.index.publishers()
        except IndexClientError:
            self.misses += 1
            return
        self.samples.append(Sample(self.now_s, tuple(rows)))
        for row in rows:
            before = self._states.get(row.name, "")
            if before != row.state:
                self._states[row.name] = row.state
                self.on_change(row.name, before, row.state)
        if self.restart is not None:
            self.restart.observe(self.now_s, self.row(self.restart.publisher))
