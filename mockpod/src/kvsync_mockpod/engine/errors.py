"""The engine's one exception tree; servers translate it to HTTP, command lines to one line and exit code 2.

EngineError
├── EngineConfigError         a configuration the engine cannot run with
├── RequestRefusedError       a request is not accepted; nothing was changed
│   ├── PromptEmptyError
│   ├── PromptTooLongError    `max_model_len` tokens or more (vLLM refuses, it does not truncate)
│   ├── InvalidRequestError   a field outside its range
│   ├── DuplicateRequestError the id is in use
│   ├── QueueFullError        the bounded waiting queue is full
│   ├── UnknownLoraError      LoRA asked for where no slot exists
│   └── DrainingError         the engine is shutting down
└── ExecutorError             raised by an executor
    ├── StepFailedError       the whole step failed: retried, then its requests end with `error`
    └── RequestFailedError    one request cannot be run: it ends with `error` before any block is announced

Every message is one line for a person.
"""


class EngineError(Exception):
    """Base of every error the engine raises on purpose; the message is one line for a person."""


class EngineConfigError(EngineError, ValueError):
    """A configuration the engine cannot run with: names the field, the value and what is allowed."""


class RequestRefusedError(EngineError):
    """A request was not accepted; the engine is unchanged."""


class PromptEmptyError(RequestRefusedError):
    """The prompt has no tokens."""


class PromptTooLongError(RequestRefusedError):
    """The prompt has `max_model_len` tokens or more."""


class InvalidRequestError(RequestRefusedError):
    """A field of the request is outside its range."""


class DuplicateRequestError(RequestRefusedError):
    """A live request has this id already."""


class QueueFullError(RequestRefusedError):
    """The bounded waiting queue is full; the client should come back later (HTTP 429)."""


class UnknownLoraError(RequestRefusedError):
    """A LoRA was asked for and the engine has no LoRA slots."""


class DrainingError(RequestRefusedError):
    """The engine is draining before a shutdown (HTTP 503)."""


class ExecutorError(EngineError):
    """Base of what an executor may raise."""


class StepFailedError(ExecutorError):
    """A step failed as a whole."""


class RequestFailedError(ExecutorError):
    """One request cannot be executed; the others are not touched."""
