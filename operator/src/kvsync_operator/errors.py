"""The exceptions of this package, one tree.

```
OperatorError
├── InvalidSpecError      a resource that cannot be run as it is written: names the field
├── ConfigError           the operator's own settings are wrong: exit code 2
├── IncompleteError       a pass that could not bring everything about: its condition says so, it is tried again
└── ApiError              the API server refused or did not answer
    ├── NotFoundError     404
    ├── ConflictError     409: another manager owns a field, or the object changed meanwhile
    ├── ForbiddenError    401, 403: rights are missing; more attempts do not help by themselves
    ├── RefusedError      400, 422: the API server finds the object invalid
    └── UnavailableError  no answer, 429, 5xx: worth another attempt
```
They become conditions or log lines at the edge; no handler lets one escape into kopf.
"""

__all__ = [
    "ApiError",
    "ConfigError",
    "ConflictError",
    "ForbiddenError",
    "IncompleteError",
    "InvalidSpecError",
    "NotFoundError",
    "OperatorError",
    "RefusedError",
    "UnavailableError",
]


class OperatorError(Exception):
    """Everything this package raises on purpose."""


class InvalidSpecError(OperatorError):
    """A custom resource that cannot be run.

    Args:
        field: path of the field as written in YAML, such as `spec.cache.blockSize`.
        reason: what is wrong and what is allowed.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class ConfigError(OperatorError):
    """A setting of the operator process is wrong."""


class IncompleteError(OperatorError):
    """A pass after which something is still missing; the status says what."""


class ApiError(OperatorError):
    """The API server did not do what was asked. `status` is the HTTP code, 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ApiError):
    """The object, or its kind, is not there."""


class ConflictError(ApiError):
    """Another field manager owns a field, or the object changed meanwhile."""


class ForbiddenError(ApiError):
    """The operator's service account may not do this."""


class RefusedError(ApiError):
    """The API server finds the object invalid."""


class UnavailableError(ApiError):
    """No answer, or one that says to come back later."""
