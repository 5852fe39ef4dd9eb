"""What the command line asks an index, over HTTP."""

import re
from collections.abc import Sequence
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from kvsync.errors import KvsyncError, UnreachableError
from kvsync_indexer.api import (
    AuditReport,
    AuditRequest,
    DigestAnswer,
    ErrorAnswer,
    MatchAnswer,
    MatchRequest,
    PublisherRow,
    PublishersAnswer,
    Readiness,
)

ANSWER_TIMEOUT_S = 30.0
_T = TypeVar("_T")


class IndexClient:
    """One index. Every method raises UnreachableError or KvsyncError."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url.rstrip("/")

    async def publishers(self) -> list[PublisherRow]:
        """Every publisher, by name."""
        answer = await self._ask(PublishersAnswer, "GET", "/v1/publishers")
        return sorted(answer.publishers, key=lambda row: row.name)

    async def match(self, request: MatchRequest) -> MatchAnswer:
        """Who holds how much of a prompt."""
        return await self._ask(MatchAnswer, "POST", "/v1/match", request)

    async def audit(self, publishers: Sequence[str] = (), wait_quiet_s: float = 0.0) -> AuditReport:
        """Have the index audit the named publishers (none named: all), waiting for engines to be quiet."""
        request = AuditRequest(list(publishers) or None, wait_quiet_s)
        return await self._ask(AuditReport, "POST", "/v1/audit", request)

    async def digest(self, publisher: str) -> DigestAnswer:
        """The digests of one publisher's blocks."""
        return await self._ask(DigestAnswer, "GET", f"/v1/publishers/{quote(publisher, safe='')}/digest")

    async def core(self) -> str:
        """Which index core runs: `python` or `native`."""
        return (await self._ask(Readiness, "GET", "/readyz")).core

    async def metrics(self) -> str:
        """The text of `/metrics`."""
        return (await self._request("GET", "/metrics")).decode()

    async def _ask(self, kind: type[_T], method: str, path: str, request: msgspec.Struct | None = None) -> _T:
        answer = await self._request(method, path, request)
        try:
            return msgspec.json.decode(answer, type=kind)
        except msgspec.MsgspecError as error:
            raise KvsyncError(f"index {self.url}{path}: not the answer of an index: {error}") from None

    async def _request(self, method: str, path: str, request: msgspec.Struct | None = None) -> bytes:
        data = None if request is None else msgspec.json.encode(request)
        headers = {} if request is None else {"content-type": "application/json"}
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        try:
            async with self._session.request(
                method, self.url + path, data=data, headers=headers, timeout=timeout
            ) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"index {self.url}: {describe(error)}") from None
        if response.status != 200:
            raise KvsyncError(f"index {self.url}{path}: status {response.status}: {_message(answer)}")
        return answer


def describe(error: BaseException) -> str:
    """A connection error in a few words."""
    cause = getattr(error, "os_error", error)
    if isinstance(cause, OSError) and cause.strerror:
        return re.sub(r"^Connect call failed.*", "nothing listens there", cause.strerror).lower()
    return str(error) or type(error).__name__


def _message(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=ErrorAnswer).error.message
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return body[:200].decode("utf-8", "replace")
