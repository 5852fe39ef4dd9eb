"""uvicorn's HTTP protocol, extended to tell a request that its client has left.

ASGI tells that only to a task that waits for it. A proxy would need two more tasks per request: one that waits, and one
that serves and can be cancelled.
"""

from collections.abc import Callable
from typing import Final

from kvsync_indexer.descriptors import ReservingProtocol
from kvsync_indexer.serving import Scope

EXTENSION: Final = "kvsync.connection"


class ClientProtocol(ReservingProtocol):
    """One connection of a client."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.leaving: set[Callable[[], None]] = set()
        """Called when the client has left."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self.scope["extensions"] = {EXTENSION: self}  # type: ignore[dict-item]

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left, or the connection was closed after an answer."""
        super().connection_lost(exc)
        for leave in list(self.leaving):
            leave()


def connection_of(scope: Scope) -> ClientProtocol | None:
    """The connection of a request; None if another server called the application."""
    connection = scope.get("extensions", {}).get(EXTENSION)
    return connection if isinstance(connection, ClientProtocol) else None
