"""Errors as OpenAI clients expect them, in vLLM's form: `{"error": {message, type, param, code}}`."""

import re

import msgspec

from kvsync_mockpod.errors import MockPodError

_TYPES = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    409: "ConflictError",
    413: "RequestTooLargeError",
    429: "RateLimitError",
    500: "InternalServerError",
    501: "NotImplementedError",
    503: "ServiceUnavailableError",
}
_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`")


class HttpError(MockPodError):
    """A refusal with its status; `param` names the field of the body, query or header."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = headers

    def payload(self) -> dict[str, object]:
        """The `error` object."""
        kind = _TYPES.get(self.status, "APIError")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}


def bad_request(message: str, param: str | None = None) -> HttpError:
    """A 400 error."""
    return HttpError(400, message, param=param)


def not_found(message: str, param: str | None = None) -> HttpError:
    """A 404 error."""
    return HttpError(404, message, param=param)


def unavailable(message: str) -> HttpError:
    """A 503 error that asks the client to try again."""
    return HttpError(503, message, headers=((b"retry-after", b"1"),))


def too_busy(message: str) -> HttpError:
    """A 429 error, for a full waiting queue."""
    return HttpError(429, message, headers=((b"retry-after", b"1"),))


def from_decode_error(error: msgspec.DecodeError) -> HttpError:
    """A 400 error for a body that cannot be decoded; `param` is the path of the invalid field."""
    text = str(error)
    found = _PATH.search(text)
    if found is None:
        prefix = "" if isinstance(error, msgspec.ValidationError) else "the body is not JSON: "
        return bad_request(prefix + text)
    param = found[1] or None
    return bad_request(f"{param}: {_PATH.sub('', text)}" if param else _PATH.sub("", text), param)
