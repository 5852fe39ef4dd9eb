"""The exception tree of the index core, the same for both implementations.

    CoreError
    ├── UnknownPublisherError   the publisher was never added, or it was removed
    ├── PublisherConflictError  the publisher exists with another model
    ├── LimitError              a hard limit would be exceeded; nothing of the payload was applied
    ├── QueryError              the tokens or the context of a query are malformed
    ├── SnapshotError           the snapshot is damaged, of another version, or over a limit; nothing was restored
    └── CoreUnavailableError    the requested implementation is not installed

A payload that is not an event batch raises `kvsync_events.DecodeError`, which is not part of this tree.
"""


class CoreError(Exception):
    """Base of every error that the index core raises on purpose."""


class UnknownPublisherError(CoreError, KeyError):
    """No publisher has that name; `add_publisher` must be called first."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class PublisherConflictError(CoreError, ValueError):
    """A publisher of that name exists with another model; it must be removed first."""


class LimitError(CoreError):
    """A hard limit would be exceeded, and nothing of the payload was applied.

    For `apply_many`, `batch` is the position of that payload among the others, counted from 0; those before it were
    applied.
    """

    def __init__(self, message: str, batch: int | None = None) -> None:
        super().__init__(message)
        self.batch = batch


class QueryError(CoreError, ValueError):
    """The tokens are not 32-bit token ids, or the context holds something that cannot identify a block."""


class SnapshotError(CoreError, ValueError):
    """The snapshot cannot be trusted; the core's state is unchanged."""


class CoreUnavailableError(CoreError, ImportError):
    """The native core was requested and is not installed."""
