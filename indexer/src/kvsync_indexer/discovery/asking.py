"""Asks engines for their event sources, off the watch thread, so that a slow pod delays no other.

An engine that cannot be reached is asked again a few times, with growing pauses; every pod has one question open at
most. The answers go to a callback, in one of the threads of this module.
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from kvsync_indexer.discovery.limits import MAX_PROBLEM, ArgumentsError
from kvsync_indexer.discovery.sources import Sources, fetch_sources

_log = structlog.get_logger("kvsync_indexer.discovery")

THREADS = 4
ATTEMPTS = 6
PAUSE_S = 1.0
"""Pause before the second attempt; every further one is twice as long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The sources of an engine, the problem of its answer, or neither if it does not offer the list."""

    sources: Sources | None = None
    problem: str | None = None


Deliver = Callable[[str, Answer], None]


@dataclass(frozen=True, slots=True)
class _Question:
    key: str
    url: str
    deliver: Deliver
    attempt: int = 1


class SourceAsker:
    """Answers questions in daemon threads until it is stopped."""

    def __init__(
        self,
        fetch: Callable[[str], Sources | None] = fetch_sources,
        *,
        threads: int = THREADS,
        pause_s: float = PAUSE_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._pause_s = pause_s
        self._monotonic = monotonic
        self._due: list[tuple[float, int, _Question]] = []
        self._wanted: set[str] = set()
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._main, name=f"kvsync-sources-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask nothing more. A question that is under way ends within its own deadline."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def ask(self, key: str, url: str, deliver: Deliver) -> None:
        """Ask the engine at `url`, and call `deliver(key, answer)`. A key that is already open is not asked twice."""
        with self._changed:
            if key not in self._wanted:
                self._wanted.add(key)
                self._push(_Question(key, url, deliver), 0.0)

    def forget(self, key: str) -> None:
        """The answer is no longer needed."""
        with self._changed:
            self._wanted.discard(key)

    def _push(self, question: _Question, delay_s: float) -> None:
        heapq.heappush(self._due, (self._monotonic() + delay_s, next(self._numbers), question))
        self._changed.notify()

    def _main(self) -> None:
        while (question := self._next()) is not None:
            try:
                self._one(question)
            except Exception as error:  # noqa: BLE001  the thread must serve the next question
                _log.error("event_sources_failed", pod=question.key, problem=repr(error)[:MAX_PROBLEM])

    def _next(self) -> _Question | None:
        with self._changed:
            while not self._stopped:
                wait_s = self._due[0][0] - self._monotonic() if self._due else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_s)
            return None

    def _one(self, question: _Question) -> None:
        if question.key not in self._wanted:
            return
        try:
            answer = Answer(self._fetch(question.url))
        except ArgumentsError as error:
            answer = Answer(problem=str(error)[:MAX_PROBLEM])
        except OSError as error:
            if question.attempt < ATTEMPTS:
                again = _Question(question.key, question.url, question.deliver, question.attempt + 1)
                with self._changed:
                    self._push(again, self._pause_s * 2 ** (question.attempt - 1))
                return
            _log.info("event_sources_unreachable", url=question.url, problem=str(error)[:MAX_PROBLEM])
            answer = Answer()
        with self._changed:
            wanted = question.key in self._wanted
            self._wanted.discard(question.key)
        if wanted:
            question.deliver(question.key, answer)
