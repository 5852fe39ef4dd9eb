"""The router's exceptions, and their shape on the wire.

RouterError
├── ScorerUnavailableError    the index did not answer in time, or not with an answer
├── RouterConfigError         a setting that cannot be used
└── RequestRefusedError       the client gets this as an OpenAI-shaped error
"""


class RouterError(Exception):
    """Root of the router's exceptions."""


class ScorerUnavailableError(RouterError):
    """Nobody can say who holds what: the decision falls back to load."""


class RouterConfigError(RouterError):
    """A setting that cannot be used; the message is one line for the user."""


class RequestRefusedError(RouterError):
    """A request that is answered by the router itself, with an error."""

    def __init__(
        self, status: int, message: str, kind: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.param = param
        self.code = code

    def body(self) -> dict[str, object]:
        """The JSON body OpenAI clients expect."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}
