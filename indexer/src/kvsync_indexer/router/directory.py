"""Where endpoints come from: the index's publishers, or a publishers file.

The router never forgets an endpoint because its source is away: only an answer removes one.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Protocol

import aiohttp
import msgspec

from kvsync_indexer.errors import ConfigError
from kvsync_indexer.router.endpoints import EndpointInfo
from kvsync_indexer.router.errors import RouterConfigError, ScorerUnavailableError
from kvsync_indexer.static import parse_publishers

ANSWER_TIMEOUT_S = 5.0


class Directory(Protocol):
    """Lists the endpoints there are."""

    async def endpoints(self) -> list[EndpointInfo]:
        """All endpoints; ScorerUnavailableError when the source cannot say."""
        ...


class PublisherRow(msgspec.Struct):
    """What the router reads of a publisher, wherever it is listed."""

    name: str
    model: str
    http_url: str | None = None
    rank: int | None = None
    ready: bool = True
    """False: the pod takes no traffic."""


class _Publishers(msgspec.Struct):
    publishers: list[PublisherRow]


def endpoint_infos(rows: Iterable[PublisherRow]) -> list[EndpointInfo]:
    """Ready rows that have a URL; the rank is kept where several share one."""
    routable = [(row, row.http_url.rstrip("/")) for row in rows if row.http_url and row.ready]
    sharing = Counter(url for _, url in routable)
    return [
        EndpointInfo(name=row.name, url=url, model=row.model, rank=row.rank if sharing[url] > 1 else None)
        for row, url in routable
    ]


class HttpDirectory:
    """The publishers of an index, over HTTP."""

    def __init__(self, index_url: str, session: Callable[[], aiohttp.ClientSession]) -> None:
        self._url = f"{index_url.rstrip('/')}/v1/publishers"
        self._session = session
        self._decoder = msgspec.json.Decoder(_Publishers)

    async def endpoints(self) -> list[EndpointInfo]:
        """GET /v1/publishers."""
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._session().get(self._url) as response:
                response.raise_for_status()
                answer = self._decoder.decode(await response.read())
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.MsgspecError) as error:
            raise ScorerUnavailableError(f"{type(error).__name__}: {error}") from error
        return endpoint_infos(answer.publishers)


class FileDirectory:
    """A publishers file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._infos: list[EndpointInfo] = []

    def read(self) -> list[EndpointInfo]:
        """The endpoints in the file; RouterConfigError is one line."""
        try:
            stat = self._path.stat()
            if self._stamp != (stat.st_mtime_ns, stat.st_size):
                specs = parse_publishers(self._path.read_text(encoding="utf-8"), f"--publishers {self._path}")
                self._infos = endpoint_infos(
                    PublisherRow(spec.name, spec.model, spec.http_url, spec.rank, spec.ready) for spec in specs
                )
                self._stamp = (stat.st_mtime_ns, stat.st_size)
        except OSError as error:
            raise RouterConfigError(f"--publishers {self._path}: {error.strerror}") from None
        except (ConfigError, UnicodeDecodeError) as error:
            raise RouterConfigError(str(error)) from None
        return self._infos

    async def endpoints(self) -> list[EndpointInfo]:
        """The endpoints in the file as it is now."""
        try:
            return self.read()
        except RouterConfigError as error:
            raise ScorerUnavailableError(str(error)) from error


class CallableDirectory:
    """An index in this process, as a function that lists rows shaped as /v1/publishers gives them."""

    def __init__(self, rows: Callable[[], Iterable[Mapping[str, object]]]) -> None:
        self._rows = rows

    async def endpoints(self) -> list[EndpointInfo]:
        """Call the function."""
        return endpoint_infos(msgspec.convert(list(self._rows()), list[PublisherRow]))
