"""The exceptions of the service. The index core has a tree of its own (`core/errors.py`).

IndexerError
├── ConfigError           a flag, file or field that cannot be used; the message names the field, the value and the rule
├── ListenError           a listening socket could not be opened
├── RequestError          a request that cannot be answered as it was sent: HTTP 4xx
├── TokenizeError         no tokenizer could turn text into tokens
├── UnknownPromptError    only the engine knows the tokens of a prompt
├── OversizeError         a peer sent more than it may
├── AuditError            the block table of an engine could not be read
└── SnapshotFileError     a snapshot is damaged or has another format
"""


class IndexerError(Exception):
    """Root of the tree. The message is one line."""


class ConfigError(IndexerError):
    """A setting that cannot be used."""


class ListenError(IndexerError):
    """A listening socket could not be opened."""


class RequestError(IndexerError):
    """A request that cannot be answered as it was sent; `status` is the HTTP status, `field` the field at fault."""

    def __init__(self, status: int, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.field = field


class TokenizeError(IndexerError):
    """No tokenizer could turn text into tokens."""


class UnknownPromptError(IndexerError):
    """Only the engine knows the tokens of a prompt; the message says why."""


class OversizeError(IndexerError):
    """A peer sent more than it may."""


class AuditError(IndexerError):
    """The block table of an engine could not be read."""


class SnapshotFileError(IndexerError):
    """A snapshot that is damaged or has another format."""
