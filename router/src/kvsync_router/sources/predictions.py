"""Delivers reports about predictions to an index, over HTTP or in the same process.

A report is made after the client has its whole answer. A failure to deliver it is counted and has no other effect.
"""

import asyncio
import contextlib

from kvsync_indexer.api import PredictionReport
from kvsync_indexer.client import AsyncIndexClient, IndexClientError, IndexRefusedError
from kvsync_indexer.fronts import IndexAnswers
from kvsync_router.decisions.predictions import CountOutcome, Grant
from kvsync_router.sources.replicas import ReplicatedIndex

QUEUE = 1024
"""Reports that may wait for an index over HTTP; one more is dropped and counted."""


class NoPredictions:
    """For a router without an index."""

    wanted = False

    def report(self, prediction: PredictionReport) -> None:
        """Drop the report."""

    async def start(self, count: CountOutcome, grant: Grant) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Do nothing."""


class InProcessPredictions:
    """Reports to the index in whose process the router runs."""

    wanted = True

    def __init__(self, index: IndexAnswers) -> None:
        self._index = index
        self._count: CountOutcome = _ignore
        self._grant: Grant = _ignore

    def report(self, prediction: PredictionReport) -> None:
        """Record it at once."""
        try:
            answer = self._index.record_prediction(prediction)
        except Exception:  # noqa: BLE001  the request is answered already
            self._count("failed")
        else:
            self._count("reported")
            if answer.wants_report:
                self._grant(prediction.publisher)

    async def start(self, count: CountOutcome, grant: Grant) -> None:
        """Count outcomes with `count` from now on."""
        self._count = count
        self._grant = grant

    async def stop(self) -> None:
        """Do nothing, because no report waits."""


class HttpPredictions:
    """Posts reports one after the other, and leaves the index alone for `backoff_s` after a failure."""

    wanted = True

    def __init__(self, index: AsyncIndexClient | ReplicatedIndex, backoff_s: float) -> None:
        self._index = index
        self._backoff_s = backoff_s
        self._queue: asyncio.Queue[PredictionReport] = asyncio.Queue(QUEUE)
        self._count: CountOutcome = _ignore
        self._grant: Grant = _ignore
        self._task: asyncio.Task[None] | None = None

    def report(self, prediction: PredictionReport) -> None:
        """Queue it."""
        try:
            self._queue.put_nowait(prediction)
        except asyncio.QueueFull:
            self._count("dropped")

    async def start(self, count: CountOutcome, grant: Grant) -> None:
        """Begin to post, and count outcomes with `count`."""
        self._count = count
        self._grant = grant
        self._task = asyncio.create_task(self._post_all(), name="predictions")

    async def stop(self) -> None:
        """End; queued reports are dropped."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        while not self._queue.empty():
            self._queue.get_nowait()
            self._count("dropped")

    async def _post_all(self) -> None:
        while True:
            report = await self._queue.get()
            try:
                answer = await self._index.report_prediction(report)
            except IndexRefusedError:  # which says nothing about the next report
                self._count("failed")
            except IndexClientError:
                self._count("failed")
                await asyncio.sleep(self._backoff_s)
            else:
                self._count("reported")
                if answer.wants_report:
                    self._grant(answer.publisher)


def _ignore(_told: str) -> None:
    """Do nothing, until `start` provides what to do."""
