"""The service's exception tree (the index core and the router have their own).

IndexerError
├── ConfigError           a flag, file or field that cannot be used; one line naming field, value and what is allowed
├── RequestError          an HTTP request that cannot be answered as sent: 4xx, one line
├── TokenizeError         no engine could turn text into tokens
├── AuditError            the engine's ground truth could not be read
├── SnapshotFileError     a snapshot file is damaged or of another kind
└── DiscoveryError        the Kubernetes API refused or answered nonsense
"""


class IndexerError(Exception):
    """Base of every error the service raises on purpose. The text is one line."""


class ConfigError(IndexerError):
    """A setting that cannot be used."""


class RequestError(IndexerError):
    """A request that cannot be answered as sent."""

    def __init__(self, status: int, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class TokenizeError(IndexerError):
    """No engine could turn text into tokens."""


class AuditError(IndexerError):
    """The engine's ground truth could not be read."""


class SnapshotFileError(IndexerError):
    """A snapshot that must not be used."""


class DiscoveryError(IndexerError):
    """The Kubernetes API refused or answered nonsense."""
