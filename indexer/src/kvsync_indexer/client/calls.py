"""The calls of the API without any I/O: what is sent, how long the answer may be, and what it means."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from kvsync_indexer.api import (
    AuditReport,
    AuditRequest,
    BatchMatchAnswer,
    BatchMatchRequest,
    BlockLine,
    DigestAnswer,
    ErrorAnswer,
    ErrorDetail,
    Health,
    MatchAnswer,
    MatchRequest,
    PredictionAnswer,
    PredictionReport,
    PublisherRow,
    PublishersAnswer,
    Readiness,
)
from kvsync_indexer.client.errors import IndexAnswerError, IndexFailedError, IndexRefusedError

T = TypeVar("T")

TIMEOUT_S: Final = 30.0
"""Longest time for a call, from the connection to the end of the answer."""
MOST_ERROR_BYTES: Final = 64 << 10
MOST_SNAPSHOT_BYTES: Final = 2 << 30
"""60 bytes per block for 32 million blocks."""
_SMALL: Final = 1 << 20
_LARGE: Final = 64 << 20
_MOST_PROBLEM: Final = 300


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request and the type of its answer."""

    method: str
    path: str
    kind: Any
    """A type that msgspec decodes; bytes for the answer as it is."""
    body: bytes | None = None
    most_bytes: int = _SMALL
    unwell: bool = False
    """Status 503 has an answer of this kind as well."""

    def headers(self, token: str | None) -> dict[str, str]:
        """The headers of the request."""
        headers = {"content-type": "application/json"} if self.body is not None else {}
        return headers | ({"authorization": f"Bearer {token}"} if token else {})

    def limit(self, status: int) -> int:
        """How many bytes of an answer with this status to read."""
        return self.most_bytes if status < 400 else max(MOST_ERROR_BYTES, _SMALL if self.unwell else 0)

    def result(self, url: str, status: int, body: bytes) -> T:
        """The answer. Raises IndexRefusedError, IndexFailedError, IndexAnswerError."""
        where = f"{url}{self.path}"
        if status != 200 and not (self.unwell and status == 503):
            detail = _detail(body)
            error = IndexRefusedError if 400 <= status < 500 else IndexFailedError
            if status < 400:
                raise IndexAnswerError(f"{where}: status {status}, which no index answers")
            raise error(where, status, detail.message, detail.field)
        if self.kind is bytes:
            return body  # type: ignore[return-value]
        try:
            answer: T = msgspec.json.decode(body, type=self.kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise IndexAnswerError(f"{where}: not the answer of an index: {error}"[:_MOST_PROBLEM]) from None
        return answer


def _detail(body: bytes) -> ErrorDetail:
    try:
        return msgspec.json.decode(body, type=ErrorAnswer).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ErrorDetail(" ".join(body[:_MOST_PROBLEM].decode("utf-8", "replace").split()))


def base_url(url: str) -> str:
    """The URL without a slash at its end. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} must be http://HOST[:PORT] or https://HOST[:PORT]")
    return url.rstrip("/")


def match(request: MatchRequest) -> Call[MatchAnswer]:
    """Who holds how much of a prompt."""
    return Call("POST", "/v1/match", MatchAnswer, msgspec.json.encode(request), _LARGE)


def match_many(requests: Sequence[MatchRequest]) -> Call[BatchMatchAnswer]:
    """The same for several prompts at once."""
    body = msgspec.json.encode(BatchMatchRequest(list(requests)))
    return Call("POST", "/v1/match", BatchMatchAnswer, body, _LARGE)


def publishers() -> Call[PublishersAnswer]:
    """Every publisher."""
    return Call("GET", "/v1/publishers", PublishersAnswer, most_bytes=_LARGE)


def publisher(name: str) -> Call[PublisherRow]:
    """One publisher."""
    return Call("GET", _below(name), PublisherRow)


def digest(name: str) -> Call[DigestAnswer]:
    """The digests of a publisher's blocks."""
    return Call("GET", f"{_below(name)}/digest", DigestAnswer)


def blocks(name: str) -> Call[bytes]:
    """The blocks of a publisher; `block_lines` reads them."""
    return Call("GET", f"{_below(name)}/blocks", bytes, most_bytes=2 << 30)


def block_lines(body: bytes) -> Iterator[BlockLine]:
    """The blocks in an answer to `blocks`."""
    decoder = msgspec.json.Decoder(BlockLine)
    return (decoder.decode(line) for line in body.splitlines())


def resync(name: str) -> Call[PublisherRow]:
    """Drop the blocks of a publisher and apply its history again."""
    return Call("POST", f"{_below(name)}/resync", PublisherRow)


def audit(request: AuditRequest) -> Call[AuditReport]:
    """Compare the index with the engines."""
    return Call("POST", "/v1/audit", AuditReport, msgspec.json.encode(request), _LARGE)


def report_prediction(report: PredictionReport) -> Call[PredictionAnswer]:
    """Report how a prediction turned out."""
    return Call("POST", "/v1/predictions", PredictionAnswer, msgspec.json.encode(report))


def health() -> Call[Health]:
    """Whether the process works."""
    return Call("GET", "/healthz", Health, unwell=True)


def readiness() -> Call[Readiness]:
    """Whether queries get useful answers."""
    return Call("GET", "/readyz", Readiness, unwell=True)


def metrics() -> Call[bytes]:
    """The Prometheus metrics as text."""
    return Call("GET", "/metrics", bytes, most_bytes=_LARGE)


def snapshot() -> Call[bytes]:
    """A snapshot of the index."""
    return Call("GET", "/v1/snapshot", bytes, most_bytes=MOST_SNAPSHOT_BYTES)


def _below(name: str) -> str:
    return f"/v1/publishers/{quote(name, safe='')}"
