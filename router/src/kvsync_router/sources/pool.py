"""The endpoints of an InferencePool, as the watches of `kvsync_indexer.pools` know them.

A pod that leaves is gone from the list at once, because its source announces every change.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from kvsync_router.decisions.endpoints import EndpointInfo
from kvsync_router.errors import DirectoryUnavailableError
from kvsync_router.sources.directory import Listed, endpoint_infos


class PoolSource(Protocol):
    """What is asked of a follower of a pool."""

    name: str

    def start(self, on_change: Callable[[], None]) -> None: ...  # noqa: D102
    def stop(self) -> None: ...  # noqa: D102
    def endpoints(self) -> Sequence[Listed] | None: ...  # noqa: D102
    def problem(self) -> str | None: ...  # noqa: D102


class PoolDirectory:
    """The ready endpoints of one pool."""

    def __init__(self, source: PoolSource, key_of: Callable[[str], str | None] = lambda _name: None) -> None:
        """`key_of` finds the key with which to ask an engine over HTTP, by the name of its endpoint."""
        self._source = source
        self._key_of = key_of

    async def endpoints(self) -> list[EndpointInfo]:
        """Every endpoint of a ready pod. Raises DirectoryUnavailableError while the pool has not been read."""
        listed = self._source.endpoints()
        if listed is None:
            reason = self._source.problem() or "it has not been listed yet"
            raise DirectoryUnavailableError(f"InferencePool {self._source.name}: {reason}")
        return endpoint_infos(listed, self._key_of)

    def start(self, on_change: Callable[[], None]) -> None:
        """Begin to watch; `on_change` is called in other threads."""
        self._source.start(on_change)

    def stop(self) -> None:
        """End the watches."""
        self._source.stop()
