"""The exception tree of this package.

```
OperatorError
├── InvalidSpecError      the spec of a resource is invalid; the error names the field
├── ConfigError           a setting of the operator process is invalid; exit code 2
├── IncompleteError       a pass could not apply or prune every object; the pass is retried
└── ApiError              the API server refused a request or did not answer
    ├── NotFoundError     404
    ├── ConflictError     409: another manager owns a field, or the object has changed
    ├── ForbiddenError    401, 403: the operator lacks a permission
    ├── RefusedError      400, 422: the API server considers the object invalid
    └── UnavailableError  no answer, 429 or 5xx; a later attempt may succeed
```
They become conditions or log lines; none of them reaches kopf.
"""


class OperatorError(Exception):
    """Base of all errors that this package raises."""


class InvalidSpecError(OperatorError):
    """The spec of a custom resource is invalid.

    Args:
        field: Path of the field as it is written in YAML, such as `spec.cache.blockSize`.
        reason: What is wrong with the value, and which values are allowed.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class ConfigError(OperatorError):
    """A setting of the operator process is invalid."""


class IncompleteError(OperatorError):
    """A pass could not apply or prune every object; the status of the resource says which and why."""


class ApiError(OperatorError):
    """The API server refused a request or did not answer. `status` is the HTTP status code, 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NotFoundError(ApiError):
    """The object, or its kind, does not exist."""


class ConflictError(ApiError):
    """Another field manager owns a field, the object has changed, or its name is taken."""


class ForbiddenError(ApiError):
    """The operator's service account lacks a permission, or an admission rule or a quota refused the request."""


class RefusedError(ApiError):
    """The API server considers the object invalid."""


class UnavailableError(ApiError):
    """The API server did not answer, or asked to try again later."""
