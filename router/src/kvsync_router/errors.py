"""The exceptions of the router.

RouterError
├── ScorerUnavailableError    the index did not answer in time, or answered with an error
├── DirectoryUnavailableError the endpoints cannot be listed at the moment
├── RouterConfigError         a setting that cannot be used; the message is one line for the user
├── RequestRefusedError       a request that the router itself answers with an OpenAI-shaped error
├── UpstreamError             one attempt at an endpoint failed before the first byte of its answer
├── ModelsUnreadableError     an engine's list of models cannot be read
├── UsageUnreadableError      the usage in an engine's answer cannot be read
├── ClientGoneError           the client left before its request was complete
└── PickerProtocolError       a gateway sent what the external processing protocol does not permit
"""


class RouterError(Exception):
    """Root of the tree."""


class ScorerUnavailableError(RouterError):
    """The index cannot say who holds what; the decision falls back to load."""


class DirectoryUnavailableError(RouterError):
    """The endpoints cannot be listed at the moment; the last known ones stay."""


class RouterConfigError(RouterError):
    """A setting that cannot be used."""


class RequestRefusedError(RouterError):
    """A request that the router itself answers with an error; `kind` is OpenAI's error type."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        """`retry_after_s` becomes the header `retry-after`."""
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code

    def body(self) -> dict[str, object]:
        """The JSON body that OpenAI clients expect."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class UpstreamError(RouterError):
    """One attempt failed. `down`: the endpoint accepted no connection. `busy`: it works, but its queue is full.

    `cut_off`: it did not even refuse the connection.
    """

    def __init__(self, reason: str, *, down: bool = False, cut_off: bool = False, busy: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.down = down
        self.cut_off = cut_off
        self.busy = busy


class ModelsUnreadableError(RouterError):
    """An engine's answer to `/v1/models` is not a list of models, or it is too long."""


class UsageUnreadableError(RouterError):
    """The usage in an answer cannot be read: the answer is too long, or not JSON."""


class ClientGoneError(RouterError):
    """The client left before its request was complete."""


class PickerProtocolError(RouterError):
    """A gateway sent what the external processing protocol does not permit at this point of a stream."""
