"""The client that blocks."""

import http.client
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import urlsplit

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
from kvsync_indexer.client import calls
from kvsync_indexer.client.describing import describe
from kvsync_indexer.client.errors import IndexAnswerError, IndexTimeoutError, IndexUnreachableError

T = TypeVar("T")
_PART = 1 << 16


class IndexClient:
    """One index. It keeps one connection, which threads use in turn.

    Every method raises an error of `kvsync_indexer.client.errors`.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = calls.TIMEOUT_S,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`token` is sent as the bearer token, and `tls` is for an `https` URL. Raises ValueError for another URL."""
        self.url = calls.base_url(url)
        self._timeout_s = timeout_s
        self._token = token
        self._tls = tls
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. The next call opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def match(self, request: MatchRequest) -> MatchAnswer:
        """Who holds how much of a prompt."""
        return self._ask(calls.match(request))

    def match_many(self, requests: Sequence[MatchRequest]) -> list[BatchMatchResult]:
        """The same for several prompts, in their order; one that cannot be answered has an `error`."""
        return self._ask(calls.match_many(requests)).results

    def publishers(self) -> list[PublisherRow]:
        """Every publisher, by name."""
        return sorted(self._ask(calls.publishers()).publishers, key=lambda row: row.name)

    def publisher(self, name: str) -> PublisherRow:
        """One publisher."""
        return self._ask(calls.publisher(name))

    def digest(self, name: str) -> DigestAnswer:
        """The digests of a publisher's blocks."""
        return self._ask(calls.digest(name))

    def blocks(self, name: str) -> Iterator[BlockLine]:
        """The resident blocks of a publisher."""
        return calls.block_lines(self._ask(calls.blocks(name)))

    def resync(self, name: str) -> PublisherRow:
        """Drop the blocks of a publisher and apply its history again; the row says how it stands after that began."""
        return self._ask(calls.resync(name))

    def audit(self, publishers: Sequence[str] = (), wait_quiet_s: float = 0.0) -> AuditReport:
        """Audit the named publishers (none named: all), waiting for engines to be quiet."""
        return self._ask(calls.audit(AuditRequest(list(publishers) or None, wait_quiet_s)))

    def report_prediction(self, report: PredictionReport) -> PredictionAnswer:
        """Report how a prediction turned out."""
        return self._ask(calls.report_prediction(report))

    def health(self) -> Health:
        """Whether the process works."""
        return self._ask(calls.health())

    def readiness(self) -> Readiness:
        """Whether queries get useful answers."""
        return self._ask(calls.readiness())

    def metrics(self) -> str:
        """The Prometheus metrics."""
        return self._ask(calls.metrics()).decode()

    def snapshot(self) -> bytes:
        """A snapshot of the index."""
        return self._ask(calls.snapshot())

    def _ask(self, call: calls.Call[T]) -> T:
        with self._lock:
            try:
                status, body = self._exchange(call)
            except TimeoutError:
                self.close()
                raise IndexTimeoutError(f"{self.url}{call.path}: no answer within {self._timeout_s:g} s") from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                raise IndexUnreachableError(f"{self.url}: {describe(error)}") from None
            except IndexAnswerError:
                self.close()
                raise
        return call.result(self.url, status, body)

    def _exchange(self, call: calls.Call[T]) -> tuple[int, bytes]:
        ends = time.monotonic() + self._timeout_s
        reused = self._connection is not None
        try:
            response = self._send(call)
        except (ConnectionError, http.client.BadStatusLine):
            self.close()
            if not reused:
                raise
            response = self._send(call)  # the index had closed the connection, which kept no time
        return response.status, self._read(response, call, ends)

    def _send(self, call: calls.Call[T]) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._new_connection()
        self._connection.timeout = self._timeout_s
        prefix = urlsplit(self.url).path
        self._connection.request(call.method, prefix + call.path, call.body, call.headers(self._token))
        return self._connection.getresponse()

    def _new_connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(host, parts.port, timeout=self._timeout_s)

    def _read(self, response: http.client.HTTPResponse, call: calls.Call[T], ends: float) -> bytes:
        most = call.limit(response.status)
        parts: list[bytes] = []
        size = 0
        while part := response.read1(_PART):
            size += len(part)
            if size > most:
                raise IndexAnswerError(f"{self.url}{call.path}: an answer of more than {most} bytes")
            if time.monotonic() > ends:
                raise TimeoutError
            parts.append(part)
        response.close()  # `read1` does not notice the end, and the connection would seem busy
        return b"".join(parts)
