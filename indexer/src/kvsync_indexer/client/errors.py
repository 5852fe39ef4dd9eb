"""What goes wrong between a client and an index.

IndexClientError
├── IndexUnreachableError      there was no answer
│   └── IndexTimeoutError      not in time, that is
├── IndexRefusedError          the index refuses the request: status 4xx
├── IndexFailedError           the index cannot answer now: status 5xx
└── IndexAnswerError           the answer is not one of an index, or it is too long
"""


class IndexClientError(Exception):
    """Root of the tree. The message is one line that begins with the URL."""


class IndexUnreachableError(IndexClientError):
    """There was no answer."""


class IndexTimeoutError(IndexUnreachableError):
    """There was no complete answer in time."""


class _StatusError(IndexClientError):
    def __init__(self, url: str, status: int, problem: str, field: str | None = None) -> None:
        super().__init__(f"{url}: status {status}: {problem}")
        self.status = status
        self.problem = problem
        """What the index says about it."""
        self.field = field
        """The field of the request that is at fault, if it is one."""


class IndexRefusedError(_StatusError):
    """The index refuses the request."""


class IndexFailedError(_StatusError):
    """The index cannot answer at the moment."""


class IndexAnswerError(IndexClientError):
    """The answer is not one of an index, or it is longer than it may be."""
