"""What the command line asks an index, over HTTP."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from kvsync.errors import KvsyncError, UnreachableError

ANSWER_TIMEOUT_S = 30.0


class PublisherRow(msgspec.Struct):
    """One publisher as /v1/publishers shows it, as far as we use it."""

    name: str
    model: str
    state: str
    epoch: str | int | None = None
    incarnation: int = 0
    last_seq: int | None = None
    lag: float | None = None
    lag_s: float | None = None
    age_s: float | None = None
    reason: str = ""
    gaps: int = 0
    resyncs: int = 0
    decode_errors: int = 0
    blocks: int = 0
    incomplete: bool = False
    http_url: str | None = None
    debug_url: str | None = None
    block_size: int | None = None


class PublisherAudit(msgspec.Struct):
    """The index's verdict on one publisher."""

    publisher: str
    verdict: str
    detail: str = ""
    state: str = ""
    engine_blocks: int = 0
    index_blocks: int = 0
    missing: int = 0
    extra: int = 0
    differences: int = 0


class Audit(msgspec.Struct):
    """The index's comparison with the engines' own tables."""

    publishers: list[PublisherAudit]
    audited: int
    blocks: int
    differences: int
    equal: bool


class _Publishers(msgspec.Struct):
    publishers: list[PublisherRow]


class IndexClient:
    """One index."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url.rstrip("/")

    async def publishers(self) -> list[PublisherRow]:
        """Every publisher, by name."""
        body = await self._request("GET", "/v1/publishers")
        return sorted(msgspec.json.decode(body, type=_Publishers).publishers, key=lambda row: row.name)

    async def match(self, body: dict[str, object]) -> dict[str, Any]:
        """POST /v1/match."""
        answer: dict[str, Any] = msgspec.json.decode(await self._request("POST", "/v1/match", body))
        return answer

    async def audit(self, publishers: Sequence[str] = (), wait_quiet_s: float = 0.0) -> Audit:
        """POST /v1/audit, of some publishers or of all, waiting for engines to be quiet."""
        body: dict[str, object] = {"wait_quiet_s": wait_quiet_s}
        if publishers:
            body["publishers"] = list(publishers)
        return msgspec.json.decode(await self._request("POST", "/v1/audit", body), type=Audit)

    async def digest(self, publisher: str) -> dict[str, Any]:
        """GET /v1/publishers/{name}/digest."""
        body = await self._request("GET", f"/v1/publishers/{quote(publisher, safe='')}/digest")
        answer: dict[str, Any] = msgspec.json.decode(body)
        return answer

    async def core(self) -> str:
        """Which index core runs: python or native."""
        return str(msgspec.json.decode(await self._request("GET", "/readyz")).get("core", "unknown"))

    async def metrics(self) -> str:
        """GET /metrics."""
        return (await self._request("GET", "/metrics")).decode()

    async def _request(self, method: str, path: str, body: object = None) -> bytes:
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"content-type": "application/json"}
        try:
            async with self._session.request(
                method,
                self.url + path,
                data=data,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
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
        return re.sub(r"^Connect call failed.*", "nobody listens there", cause.strerror).lower()
    return str(error) or type(error).__name__


def _message(body: bytes) -> str:
    try:
        decoded = msgspec.json.decode(body)
        error = decoded.get("error", decoded)
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except (msgspec.MsgspecError, AttributeError):
        return body[:200].decode("utf-8", "replace")


def counter_total(text: str, name: str) -> int:
    """A Prometheus counter or gauge summed over its labels; 0 if it is not there."""
    values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, values)))


def histogram_quantile(text: str, name: str, share: float) -> float | None:
    """A quantile of a Prometheus histogram summed over its labels, by linear interpolation; None without values."""
    buckets: dict[float, float] = {}
    for bound, value in re.findall(
        rf'^{re.escape(name)}_bucket{{[^}}]*le="([^"]+)"[^}}]*}} (\S+)$', text, re.MULTILINE
    ):
        upper = math.inf if bound == "+Inf" else float(bound)
        buckets[upper] = buckets.get(upper, 0.0) + float(value)
    return _quantile(sorted(buckets.items()), share)


def _quantile(cumulative: Iterable[tuple[float, float]], share: float) -> float | None:
    pairs = list(cumulative)
    if not pairs or pairs[-1][1] == 0:
        return None
    wanted = share * pairs[-1][1]
    lower = below = 0.0
    for upper, count in pairs:
        if count >= wanted:
            if math.isinf(upper):
                return lower
            return lower + (upper - lower) * (wanted - below) / max(count - below, 1e-12)
        lower, below = upper, count
    return lower
