"""The exception tree of the test kit.

KitError
├── ConfigurationError        a builder or function was given a value, key or combination that it cannot use
├── CapacityError             a tier has no room for the blocks asked for
├── TransferError             blocks cannot be copied: shapes, ranges or counts do not fit, or the bytes did not arrive
├── UnavailableError          this machine lacks something; `reason` says what
│   ├── BackendUnavailableError   a transfer backend
│   ├── StorageUnavailableError   a kind of memory
│   └── BrowserUnavailableError   a Chromium, or the library that drives it
├── TransportError            a transport is closed, full, or silent for too long
├── ChaosError                a chaos experiment cannot go on; its subclasses are in `chaos.errors`
├── BusError                  an event bus is closed or full, or has nothing to deliver
└── SessionError              a transfer session did not get ready, or was asked for something out of turn
    └── SessionClosedError        the session is closed

What a test is *about* fails as an assertion instead, so that pytest reports a failure and not an error:

AssertionError
├── ChecksumError             bytes differ from those that were captured
├── GuardError                a block that nothing should have written was written
├── InvariantError            a history breaks a promise, or has no facts to judge it by
└── waiting.DeadlineError     a condition did not come to hold in time
"""


class KitError(Exception):
    """Base of every error that the test kit raises on purpose, assertions apart."""


class ConfigurationError(KitError, ValueError):
    """A value, key or combination of them that a builder cannot use; the message names it."""


class CapacityError(KitError):
    """A tier has no room for the blocks asked for; nothing was allocated."""


class TransferError(KitError):
    """Blocks cannot be copied between these two layouts, or not all of their bytes arrived."""


class UnavailableError(KitError):
    """Something that was required is lacking on this machine.

    Attributes:
        name: What is lacking, as its caller named it.
        reason: Why, in words that suit a skip message.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class BackendUnavailableError(UnavailableError):
    """A required transfer backend is missing."""


class StorageUnavailableError(UnavailableError):
    """The system does not grant this kind of memory."""


class BrowserUnavailableError(UnavailableError):
    """There is no Chromium, or Python lacks the library that drives it."""


class TransportError(KitError):
    """A transport is closed, its queue is full, or its peer stayed silent past the deadline."""


class BusError(KitError):
    """An event bus is closed, a subscription is full, or nothing is on its way to the subscriber."""


class SessionError(KitError):
    """A session did not become ready in time, or was asked for something that its phase does not permit."""


class SessionClosedError(SessionError):
    """The session was closed before, or while, the request was waiting."""


class ChecksumError(AssertionError):
    """The bytes of a block differ from those captured; the message names position, block and layer."""


class GuardError(AssertionError):
    """A guard block changed, so something wrote outside the blocks it was given."""


class InvariantError(AssertionError):
    """An invariant was violated or could not be checked; the message has the first counter-example."""
