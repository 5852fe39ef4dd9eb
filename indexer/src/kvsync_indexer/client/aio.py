"""The asynchronous client."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

import aiohttp

from kvsync_indexer.addresses import guarded_connector
from kvsync_indexer.api import (
    AuditReport,
    AuditRequest,
    BatchMatchResult,
    BlockLine,
    DigestAnswer,
    Health,
    MatchAnswer,
    MatchRequest,
    PredictionAnswer,
    PredictionReport,
    PublisherRow,
    Readiness,
)
from kvsync_indexer.bounded import Bound, read_answer
from kvsync_indexer.client import calls
from kvsync_indexer.client.describing import describe
from kvsync_indexer.client.errors import IndexAnswerError, IndexTimeoutError, IndexUnreachableError
from kvsync_indexer.errors import OversizeError

T = TypeVar("T")
_CONNECTIONS = 64


class AsyncIndexClient:
    """One index. Every method raises an error of `kvsync_indexer.client.errors`."""

    def __init__(
        self,
        url: str,
        *,
        session: Callable[[], aiohttp.ClientSession] | None = None,
        timeout_s: float = calls.TIMEOUT_S,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`session` gives a session that stays the caller's; without one, the client opens its own and `close`s it.

        `token` is sent as the bearer token, and `tls` is for an `https` URL. Raises ValueError for another URL.
        """
        self.url = calls.base_url(url)
        self.timeout_s = timeout_s
        self._given = session
        self._own: aiohttp.ClientSession | None = None
        self._token = token
        self._tls: ssl.SSLContext | bool = True if tls is None else tls

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client's own connections."""
        if self._own is not None:
            await self._own.close()
            self._own = None

    async def match(self, request: MatchRequest) -> MatchAnswer:
        """Who holds how much of a prompt."""
        return await self._ask(calls.match(request))

    async def match_many(self, requests: Sequence[MatchRequest]) -> list[BatchMatchResult]:
        """The same for several prompts, in their order; one that cannot be answered has an `error`."""
        return (await self._ask(calls.match_many(requests))).results

    async def publishers(self) -> list[PublisherRow]:
        """Every publisher, by name."""
        return sorted((await self._ask(calls.publishers())).publishers, key=lambda row: row.name)

    async def publisher(self, name: str) -> PublisherRow:
        """One publisher."""
        return await self._ask(calls.publisher(name))

    async def digest(self, name: str) -> DigestAnswer:
        """The digests of a publisher's blocks."""
        return await self._ask(calls.digest(name))

    async def blocks(self, name: str) -> Iterator[BlockLine]:
        """The resident blocks of a publisher."""
        return calls.block_lines(await self._ask(calls.blocks(name)))

    async def resync(self, name: str) -> PublisherRow:
        """Drop the blocks of a publisher and apply its history again; the row says how it stands after that began."""
        return await self._ask(calls.resync(name))

    async def audit(self, publishers: Sequence[str] = (), wait_quiet_s: float = 0.0) -> AuditReport:
        """Audit the named publishers (none named: all), waiting for engines to be quiet."""
        return await self._ask(calls.audit(AuditRequest(list(publishers) or None, wait_quiet_s)))

    async def report_prediction(self, report: PredictionReport) -> PredictionAnswer:
        """Report how a prediction turned out."""
        return await self._ask(calls.report_prediction(report))

    async def health(self) -> Health:
        """Whether the process works."""
        return await self._ask(calls.health())

    async def readiness(self) -> Readiness:
        """Whether queries get useful answers."""
        return await self._ask(calls.readiness())

    async def metrics(self) -> str:
        """The Prometheus metrics."""
        return (await self._ask(calls.metrics())).decode()

    async def snapshot(self) -> bytes:
        """A snapshot of the index."""
        return await self._ask(calls.snapshot())

    async def _ask(self, call: calls.Call[T]) -> T:
        try:
            async with asyncio.timeout(self.timeout_s):
                status, body = await self._exchange(call)
        except TimeoutError:
            raise IndexTimeoutError(f"{self.url}{call.path}: no answer within {self.timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise IndexUnreachableError(f"{self.url}: {describe(error)}") from None
        except OversizeError as error:
            raise IndexAnswerError(f"{self.url}{call.path}: {error}") from None
        return call.result(self.url, status, body)

    async def _exchange(self, call: calls.Call[T]) -> tuple[int, bytes]:
        async with self._session().request(
            call.method,
            self.url + call.path,
            data=call.body,
            headers=call.headers(self._token),
            ssl=self._tls,
            allow_redirects=False,
        ) as response:
            bound = Bound(call.limit(response.status), self.timeout_s)
            return response.status, await read_answer(response, bound)

    def _session(self) -> aiohttp.ClientSession:
        if self._given is not None:
            return self._given()
        if self._own is None:
            self._own = aiohttp.ClientSession(connector=guarded_connector(_CONNECTIONS))
        return self._own
