"""Several replicas of one index as one: a question goes to the preferred replica, and on to another if that fails."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from kvsync_indexer.api import MatchRequest, PredictionAnswer, PredictionReport, PublisherRow
from kvsync_indexer.client import AsyncIndexClient, IndexClientError, IndexRefusedError
from kvsync_router.decisions.replicas import ReplicaChoice
from kvsync_router.decisions.scoring import Score, Scorer
from kvsync_router.errors import ScorerUnavailableError

T = TypeVar("T")
_log = structlog.get_logger("kvsync_router.replicas")


class ReplicaScorer:
    """Asks the replicas one after the other, all within one match time-out.

    A replica that fails hands over at once. One that is silent has until its share of the time is over; the next one is
    then asked as well, and the first answer counts.
    """

    def __init__(
        self, scorers: Sequence[Scorer], choice: ReplicaChoice, timeout_s: float, clock: Callable[[], float]
    ) -> None:
        self._scorers = scorers
        self._choice = choice
        self._timeout_s = timeout_s
        self._clock = clock

    async def score(self, request: MatchRequest) -> Score:
        """Who holds how much. Raises ScorerUnavailableError if no replica answers in time."""
        ends = self._clock() + self._timeout_s
        asked: dict[asyncio.Task[Score], int] = {}
        waiting = self._choice.order()
        problem = f"no replica answered within {self._timeout_s:g} s"
        try:
            while waiting or asked:
                if waiting:
                    at = waiting.pop(0)
                    asked[asyncio.create_task(self._scorers[at].score(request))] = at
                left = ends - self._clock()
                if left <= 0:
                    break
                share = left / (len(waiting) + 1)
                done, _ = await asyncio.wait(asked, timeout=share, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in asked if task in done]:
                    try:
                        score = task.result()
                    except ScorerUnavailableError as error:
                        problem = str(error)
                        self._choice.failed(asked.pop(task))
                    else:
                        self._take(task, asked)
                        return score
            for at in asked.values():
                self._choice.failed(at)
        finally:
            await _cancel(asked)
        raise ScorerUnavailableError(problem)

    def _take(self, winner: asyncio.Task[Score], asked: dict[asyncio.Task[Score], int]) -> None:
        """Note who answered, and that those who were asked before were slower."""
        self._choice.answered(asked[winner])
        for task, at in asked.items():
            if task is winner:
                break
            self._choice.failed(at)


async def _cancel(tasks: dict[asyncio.Task[Score], int]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class ReplicatedIndex:
    """The calls of an index that are not urgent, put to the replicas in turn."""

    def __init__(self, indexes: Sequence[AsyncIndexClient], choice: ReplicaChoice) -> None:
        self._indexes = indexes
        self._choice = choice

    async def publishers(self) -> list[PublisherRow]:
        """Every publisher, by name. Raises IndexClientError, here and below."""
        return await self._first(lambda index: index.publishers())

    async def report_prediction(self, report: PredictionReport) -> PredictionAnswer:
        """Report how a prediction turned out."""
        return await self._first(lambda index: index.report_prediction(report))

    async def _first(self, ask: Callable[[AsyncIndexClient], Awaitable[T]]) -> T:
        problem: IndexClientError | None = None
        for at in self._choice.order():
            try:
                return await ask(self._indexes[at])
            except IndexRefusedError:  # which another replica would do as well
                raise
            except IndexClientError as error:
                self._choice.failed(at)
                problem = error
        assert problem is not None, "there is at least one replica"
        raise problem


class ReplicaProbe:
    """Asks every replica from time to time whether it is ready, and measures how long the answer takes."""

    def __init__(
        self,
        indexes: Sequence[AsyncIndexClient],
        choice: ReplicaChoice,
        period_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._indexes = indexes
        self._choice = choice
        self._period_s = period_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Make one round, then go on in the background."""
        await self.probe()
        self._task = asyncio.create_task(self._run(), name="index-replicas")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def probe(self) -> None:
        """Make one round."""
        await asyncio.gather(*(self._one(at) for at in range(len(self._indexes))))
        self._choice.settle()

    async def _one(self, at: int) -> None:
        began = self._clock()
        try:
            ready = (await self._indexes[at].readiness()).ready
        except IndexClientError:
            ready = False
        self._choice.probed(at, self._clock() - began if ready else None)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            await self.probe()


def announce_preferred(urls: Sequence[str]) -> Callable[[int], None]:
    """A function that logs which of these replicas is preferred now."""
    return lambda at: _log.info("index_replica_preferred", url=urls[at])
