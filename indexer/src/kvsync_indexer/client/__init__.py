"""Clients of an index's HTTP API, with the types of `kvsync_indexer.api`.

`IndexClient` blocks and needs only the standard library and msgspec; `AsyncIndexClient` runs on aiohttp, and is loaded
when it is first used. Both have a time limit for each call and a limit for the bytes of each answer, follow no
redirects, and raise the errors of `client.errors`.

    with IndexClient("http://127.0.0.1:8090") as index:
        answer = index.match(MatchRequest("model", prompt="The capital of France is"))
"""

from typing import TYPE_CHECKING

from kvsync_indexer.client.errors import (
    IndexAnswerError,
    IndexClientError,
    IndexFailedError,
    IndexRefusedError,
    IndexTimeoutError,
    IndexUnreachableError,
)
from kvsync_indexer.client.sync import IndexClient

if TYPE_CHECKING:
    from kvsync_indexer.client.aio import AsyncIndexClient

__all__ = [
    "AsyncIndexClient",
    "IndexAnswerError",
    "IndexClient",
    "IndexClientError",
    "IndexFailedError",
    "IndexRefusedError",
    "IndexTimeoutError",
    "IndexUnreachableError",
]


def __getattr__(name: str) -> object:
    """Load the client that needs aiohttp."""
    if name == "AsyncIndexClient":
        from kvsync_indexer.client.aio import AsyncIndexClient

        return AsyncIndexClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
