"""The exceptions of the engine. Servers translate them to HTTP, command lines to one line and exit code 2.

    EngineError
    ├── EngineConfigError         the engine cannot run with this configuration
    ├── RequestRefusedError       a request is not accepted; the engine is unchanged
    │   ├── PromptEmptyError
    │   ├── PromptTooLongError    `max_model_len` tokens or more (vLLM refuses them, it does not truncate)
    │   ├── InvalidRequestError   a field is outside its range
    │   ├── DuplicateRequestError the id is in use
    │   ├── QueueFullError        the bounded waiting queue is full
    │   ├── UnknownLoraError      LoRA was requested but is disabled
    │   └── DrainingError         the engine is shutting down
    └── ExecutorError             raised by an executor
        ├── StepFailedError       the whole step failed: it is retried, then its requests end with `error`
        └── RequestFailedError    one request cannot be run: it ends with `error` before any block is announced

Every message is one line that an operator can act on.
"""


class EngineError(Exception):
    """Base of all errors that the engine raises on purpose."""


class EngineConfigError(EngineError, ValueError):
    """The engine cannot run with this configuration; the message names the field, its value and what is allowed."""


class RequestRefusedError(EngineError):
    """A request was not accepted; the engine is unchanged."""


class PromptEmptyError(RequestRefusedError):
    """The prompt has no tokens."""


class PromptTooLongError(RequestRefusedError):
    """The prompt has `max_model_len` tokens or more."""


class InvalidRequestError(RequestRefusedError):
    """A field of the request is outside its range."""


class DuplicateRequestError(RequestRefusedError):
    """A live request already has this id."""


class QueueFullError(RequestRefusedError):
    """The bounded waiting queue is full; the client should try again later (HTTP 429)."""


class UnknownLoraError(RequestRefusedError):
    """LoRA was requested, but the engine has no LoRA slots."""


class DrainingError(RequestRefusedError):
    """The engine is draining before a shutdown (HTTP 503)."""


class ExecutorError(EngineError):
    """Base of the errors that an executor may raise."""


class StepFailedError(ExecutorError):
    """A step failed as a whole."""


class RequestFailedError(ExecutorError):
    """One request cannot be executed; other requests are not affected."""
