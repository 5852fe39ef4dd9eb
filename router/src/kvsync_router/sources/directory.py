"""Where the list of endpoints comes from: the publishers of an index, a publishers file, or `sources.pool`.

A source that cannot be read removes no endpoint; only an answer does.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, runtime_checkable

from kvsync_indexer.api import PublisherRow
from kvsync_indexer.client import AsyncIndexClient, IndexClientError
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.fronts import IndexAnswers
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.publishers_file import PublishersFile
from kvsync_router.decisions.endpoints import EndpointInfo
from kvsync_router.errors import DirectoryUnavailableError, RouterConfigError
from kvsync_router.sources.replicas import ReplicatedIndex

ANSWER_TIMEOUT_S = 5.0
STALE = "stale"
"""State of a publisher of which the index has had no sign of life for a while."""


class Directory(Protocol):
    """Lists the endpoints."""

    async def endpoints(self) -> list[EndpointInfo]:
        """Every endpoint. Raises DirectoryUnavailableError."""
        ...


@runtime_checkable
class WatchedDirectory(Directory, Protocol):
    """A directory that announces changes, so that an endpoint that leaves is not used until the next reading."""

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin to watch. `on_change` may be called in any thread."""
        ...

    def stop(self) -> None:
        """End what `start` began. This may take a moment, so it is called in a thread."""
        ...


class Listed(Protocol):
    """What the router needs of a publisher: a row of the index's answer, or an entry of a publishers file."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def http_url(self) -> str | None: ...  # noqa: D102
    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def http_rank(self) -> int | None: ...  # noqa: D102
    @property
    def ready(self) -> bool: ...  # noqa: D102


def endpoint_infos(
    publishers: Iterable[Listed], key_of: Callable[[str], str | None] = lambda _name: None
) -> list[EndpointInfo]:
    """The publishers that are ready and have a URL. The rank is kept if several of them share the URL.

    It is the number that the front end at the URL expects, which may differ from the rank of the event stream.
    """
    routable = [(one, one.http_url.rstrip("/")) for one in publishers if one.http_url and one.ready]
    sharing = Counter(url for _, url in routable)
    return [
        EndpointInfo(
            name=one.name,
            url=url,
            model=one.model,
            rank=_front_end_rank(one) if sharing[url] > 1 else None,
            stale=getattr(one, "state", None) == STALE,
            api_key=key_of(one.name),
        )
        for one, url in routable
    ]


def _front_end_rank(one: Listed) -> int:
    return one.rank if one.http_rank is None else one.http_rank


class HttpDirectory:
    """The publishers of an index, over HTTP."""

    def __init__(self, index: AsyncIndexClient | ReplicatedIndex) -> None:
        self._index = index

    async def endpoints(self) -> list[EndpointInfo]:
        """Ask `GET /v1/publishers`."""
        try:
            rows = await self._index.publishers()
        except IndexClientError as error:
            raise DirectoryUnavailableError(str(error)) from error
        return endpoint_infos(rows)


class FileDirectory:
    """A publishers file, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._file = PublishersFile(path)
        self._infos: list[EndpointInfo] = []

    def read(self) -> list[EndpointInfo]:
        """The endpoints in the file now. Raises RouterConfigError."""
        try:
            self._take(self._file.read())
        except ConfigError as error:
            raise RouterConfigError(str(error)) from None
        return self._infos

    async def endpoints(self) -> list[EndpointInfo]:
        """The endpoints in the last version of the file that could be read."""
        try:
            specs = self._file.poll()
        except ConfigError as error:
            raise DirectoryUnavailableError(str(error)) from error
        if specs is not None:
            self._take(specs)
        return self._infos

    def _take(self, specs: list[PublisherSpec]) -> None:
        keys = {spec.name: spec.api_key for spec in specs}
        self._infos = endpoint_infos(specs, keys.get)


class InProcessDirectory:
    """The publishers of the index in whose process the router runs."""

    def __init__(self, index: IndexAnswers) -> None:
        self._index = index

    async def endpoints(self) -> list[EndpointInfo]:
        """Ask the index."""
        rows: list[PublisherRow] = self._index.publishers()
        return endpoint_infos(rows, self._index.api_key)
