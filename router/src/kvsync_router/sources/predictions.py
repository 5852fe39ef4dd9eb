"""Delivers reports about predictions to an index, over HTTP or in the same process.

A report is made after the client has its whole answer. A failure to deliver it is counted and has no other effect.
"""

import asyncio
import contextlib
from collections.abc import Callable

import aiohttp
import msgspec

from kvsync_indexer.api import PredictionAnswer, PredictionReport
from kvsync_indexer.fronts import IndexAnswers
from kvsync_router.decisions.predictions import CountOutcome, Grant

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

    def __init__(
        self, index_url: str, session: Callable[[], aiohttp.ClientSession], timeout_s: float, backoff_s: float
    ) -> None:
        self._url = f"{index_url.rstrip('/')}/v1/predictions"
        self._session = session
        self._timeout_s = timeout_s
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
            body = msgspec.json.encode(await self._queue.get())
            try:
                async with asyncio.timeout(self._timeout_s):
                    away = await self._post(body)
            except (TimeoutError, aiohttp.ClientError, OSError):
                self._count("failed")
                away = True
            if away:
                await asyncio.sleep(self._backoff_s)

    async def _post(self, body: bytes) -> bool:
        """Post one report. Returns whether the index is failing; an index that refuses one report is not."""
        headers = {"content-type": "application/json"}
        async with self._session().post(self._url, data=body, headers=headers, allow_redirects=False) as response:
            data = await response.read()
            self._count("reported" if response.status == 200 else "failed")
            if response.status == 200:
                self._take(data)
            return response.status >= 500

    def _take(self, data: bytes) -> None:
        """Read the answer; an index that answers in another way wants nothing."""
        with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            answer = msgspec.json.decode(data, type=PredictionAnswer)
            if answer.wants_report:
                self._grant(answer.publisher)


def _ignore(_told: str) -> None:
    """Do nothing, until `start` provides what to do."""
