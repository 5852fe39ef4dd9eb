"""What the index did lately, in bounded memory, so that a page that is opened now can show the past.

`Transitions` takes the state changes from the log lines of the I/O thread. `History` takes one point per interval from
the counters that exist anyway; it starts no timer and reads no clock of its own.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kvsync_indexer.api import HistoryAnswer, HistoryPoint, Transition
from kvsync_indexer.audit import Auditor
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.latency import LatencyHistogram, quantile_of
from kvsync_indexer.sync import Log, State, write_log

INTERVAL_S: Final = 5.0
POINTS: Final = 360
"""Half an hour at `INTERVAL_S`."""
TRANSITIONS: Final = 500
MOST_REASON: Final = 300
"""Longest reason that is kept, in characters: it can quote what a publisher sent."""


class Transitions:
    """The newest state changes of all publishers. `take` is called in the I/O thread, the rest in any."""

    def __init__(self, wall: Callable[[], float], most: int = TRANSITIONS) -> None:
        self._wall = wall
        self._lock = threading.Lock()
        self._newest: deque[Transition] = deque(maxlen=most)
        self._total = 0

    def take(self, line: Log) -> None:
        """Write a log line of a publisher, and remember it if it says that a state changed."""
        write_log(line)
        if line.event != "publisher_state":
            return
        name, before, after, reason = (str(line.fields[key]) for key in ("publisher", "before", "after", "reason"))
        made = Transition(self._wall(), name, before, after, reason[:MOST_REASON])
        with self._lock:
            self._newest.append(made)
            self._total += 1

    def since(self, at: float) -> tuple[list[Transition], int]:
        """The transitions after the time `at`, and how many the list no longer holds."""
        with self._lock:
            newest, total = list(self._newest), self._total
        return [each for each in newest if each.at > at], total - len(newest)


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counters at the end of one interval."""

    at: float
    events: int
    received_bytes: int
    arrival: Sequence[int]
    visible: Sequence[int]
    matches: int
    predicted: int
    cached: int
    over: int
    under: int


class History:
    """The newest points. Use it in one event loop."""

    def __init__(
        self,
        ingest: Ingest,
        auditor: Auditor,
        matches: LatencyHistogram,
        transitions: Transitions,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._ingest = ingest
        self._auditor = auditor
        self._matches = matches
        self._transitions = transitions
        self._wall = wall
        self._monotonic = monotonic
        self._started_at = wall()
        self._points: deque[HistoryPoint] = deque(maxlen=POINTS)
        self._last = self._read()

    def sample(self) -> None:
        """Add the point of the interval that ends now."""
        before, now = self._last, self._read()
        self._last = now
        passed = max(now.at - before.at, 1e-3)
        links = self._ingest.links()
        status = [link.machine.status(now.at) for link in links]
        self._points.append(
            HistoryPoint(
                at=self._wall(),
                publishers=len(links),
                live=sum(each.state is State.LIVE for each in status),
                blocks=self._ingest.core.stats().blocks,
                lag=sum(each.lag for each in status),
                events_per_s=_rate(before.events, now.events, passed),
                received_bytes_per_s=_rate(before.received_bytes, now.received_bytes, passed),
                matches_per_s=_rate(before.matches, now.matches, passed),
                arrival_p50_s=_quantile(before.arrival, now.arrival, 0.5),
                visible_p99_s=_quantile(before.visible, now.visible, 0.99),
                predicted_tokens=max(0, now.predicted - before.predicted),
                cached_tokens=max(0, now.cached - before.cached),
                over_tokens=max(0, now.over - before.over),
                under_tokens=max(0, now.under - before.under),
            )
        )

    def answer(self, since: float = 0.0) -> HistoryAnswer:
        """The points and transitions after the Unix time `since`."""
        transitions, dropped = self._transitions.since(since)
        points = [point for point in self._points if point.at > since]
        return HistoryAnswer(self._started_at, INTERVAL_S, points, transitions, dropped)

    def _read(self) -> _Counts:
        meter = self._ingest.shared.meter
        totals = list(self._auditor.predictions.totals.values())
        return _Counts(
            at=self._monotonic(),
            events=sum(link.totals.events for link in self._ingest.links()),
            received_bytes=meter.bytes_in,
            arrival=tuple(meter.arrival.counts),
            visible=tuple(meter.visible.counts),
            matches=sum(self._matches.counts),
            predicted=sum(each.predicted for each in totals),
            cached=sum(each.cached for each in totals),
            over=sum(each.over for each in totals),
            under=sum(each.under for each in totals),
        )


def _rate(before: int, now: int, passed_s: float) -> float:
    """Per second; 0 if the counter fell, which it does when a publisher with its counters is gone."""
    return round(max(0, now - before) / passed_s, 3)


def _quantile(before: Sequence[int], now: Sequence[int], share: float) -> float | None:
    counts = [later - earlier for earlier, later in zip(before, now, strict=True)]
    return quantile_of(counts, share) if any(counts) else None
