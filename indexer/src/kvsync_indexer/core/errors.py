"""The one exception tree of the index core, the same for both implementations.

    CoreError
    ├── UnknownPublisherError   the publisher was never added, or was removed
    ├── PublisherConflictError  the publisher exists with another model
    ├── LimitError              a hard limit; nothing of the payload was applied
    ├── QueryError              the tokens or the context of a query are no such thing
    ├── SnapshotError           the snapshot is damaged, of another version, or over a limit; nothing was restored
    └── CoreUnavailableError    the implementation asked for is not installed

A payload that is no event batch raises `kvsync_events.DecodeError`, which is not part of this tree.
"""


class CoreError(Exception):
    """Base of every error the index core raises on purpose."""


class UnknownPublisherError(CoreError, KeyError):
    """No publisher of that name; call `add_publisher` first."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class PublisherConflictError(CoreError, ValueError):
    """A publisher of that name exists with another model; remove it first."""


class LimitError(CoreError):
    """A hard limit would be passed; nothing of the payload was applied.

    `batch` is the place, from 0, of that payload among those of an `apply_many`; those before it were applied.
    """

    batch: int | None = None


class QueryError(CoreError, ValueError):
    """The tokens are no 32-bit token ids, or the context holds something that cannot identify a block."""


class SnapshotError(CoreError, ValueError):
    """The snapshot cannot be trusted; the core is as it was before."""


class CoreUnavailableError(CoreError, ImportError):
    """The native core was asked for and is not installed."""
