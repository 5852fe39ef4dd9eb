"""Tells the index how its predictions did: matched tokens it named against `cached_tokens` of the engine's answer.

With engines that have no debug endpoint (real vLLM) this is what shows whether the index is right. It happens after the
client has its last byte, in a queue of its own, and whatever goes wrong is counted and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import aiohttp
import msgspec

from kvsync_indexer.router.endpoints import Endpoint
from kvsync_indexer.router.usage import UsageReader, UsageUnreadableError

QUEUE = 1024
"""Reports that wait for the index; one more is dropped and counted."""
Outcome: TypeAlias = Literal["reported", "no_usage", "unreadable", "dropped", "failed"]
Counted: TypeAlias = Callable[[Outcome], None]


class Prediction(msgspec.Struct, frozen=True):
    """One routed request that was answered; also the body of POST /v1/predictions."""

    publisher: str
    predicted_tokens: int
    cached_tokens: int
    prompt_tokens: int


class PredictionSink(Protocol):
    """Takes reports; never waits, never raises."""

    wanted: bool
    """False: nobody listens, answers need not be read."""

    def report(self, prediction: Prediction) -> None:
        """Hand one over."""
        ...

    async def start(self, counted: Counted) -> None:
        """Begin; `counted` is told how each report ended."""
        ...

    async def stop(self) -> None:
        """End; reports still waiting are dropped."""
        ...


class NoPredictions:
    """For routers without an index."""

    wanted = False

    def report(self, prediction: Prediction) -> None:
        """Nobody to tell."""

    async def start(self, counted: Counted) -> None:
        """Nothing to begin."""

    async def stop(self) -> None:
        """Nothing to end."""


class CallablePredictions:
    """An index in this process, as a function that records one report."""

    wanted = True

    def __init__(self, record: Callable[[Prediction], None]) -> None:
        self._record = record
        self._counted: Counted = _ignore

    def report(self, prediction: Prediction) -> None:
        """Record it at once."""
        try:
            self._record(prediction)
        except Exception:  # noqa: BLE001  the request is answered; a report is worth no more than a count
            self._counted("failed")
        else:
            self._counted("reported")

    async def start(self, counted: Counted) -> None:
        """Begin."""
        self._counted = counted

    async def stop(self) -> None:
        """Nothing waits."""


class HttpPredictions:
    """Posts reports to an index, one after the other, and leaves it alone for a while after a failure."""

    wanted = True

    def __init__(
        self, index_url: str, session: Callable[[], aiohttp.ClientSession], timeout_s: float, backoff_s: float
    ) -> None:
        self._url = f"{index_url.rstrip('/')}/v1/predictions"
        self._session = session
        self._timeout_s = timeout_s
        self._backoff_s = backoff_s
        self._queue: asyncio.Queue[Prediction] = asyncio.Queue(QUEUE)
        self._counted: Counted = _ignore
        self._task: asyncio.Task[None] | None = None

    def report(self, prediction: Prediction) -> None:
        """Queue it."""
        try:
            self._queue.put_nowait(prediction)
        except asyncio.QueueFull:
            self._counted("dropped")

    async def start(self, counted: Counted) -> None:
        """Begin posting."""
        self._counted = counted
        self._task = asyncio.create_task(self._post_all(), name="predictions")

    async def stop(self) -> None:
        """Stop posting."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        while not self._queue.empty():
            self._queue.get_nowait()
            self._counted("dropped")

    async def _post_all(self) -> None:
        while True:
            body = msgspec.json.encode(await self._queue.get())
            try:
                async with asyncio.timeout(self._timeout_s):
                    away = await self._post(body)
            except (TimeoutError, aiohttp.ClientError, OSError):
                self._counted("failed")
                away = True
            if away:
                await asyncio.sleep(self._backoff_s)

    async def _post(self, body: bytes) -> bool:
        """Post one report; whether the index had better be left alone (not because it refused this one)."""
        headers = {"content-type": "application/json"}
        async with self._session().post(self._url, data=body, headers=headers) as response:
            await response.read()
            self._counted("reported" if response.status == 200 else "failed")
            return response.status >= 500


class Watch:
    """One answer of which the index predicted something: the relay shows it every chunk and then calls `done`."""

    def __init__(self, sink: PredictionSink, counted: Counted, endpoint: Endpoint, predicted: int, kind: str) -> None:
        self._sink = sink
        self._counted = counted
        self._endpoint = endpoint
        self._predicted = predicted
        self._reader = UsageReader(kind)
        self.add = self._reader.add

    def done(self) -> None:
        """The client has the whole answer: read the usage and report it."""
        try:
            usage = self._reader.usage()
        except UsageUnreadableError:
            self._counted("unreadable")
            return
        if usage is None or (usage.cached_tokens is None and not self._endpoint.tells_cached):
            self._counted("no_usage")
            return
        self._endpoint.tells_cached = True
        self._sink.report(
            Prediction(self._endpoint.info.name, self._predicted, usage.cached_tokens or 0, usage.prompt_tokens)
        )


def _ignore(_outcome: Outcome) -> None:
    """Until `start` says where to count."""
