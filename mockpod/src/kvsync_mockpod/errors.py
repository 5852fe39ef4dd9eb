"""The exceptions of the pod, apart from those of its engine.

    MockPodError
    +-- ConfigError      a flag, key or value is refused; exit code 2
    +-- StartError       the configuration is valid, but the pod cannot start (port in use); exit code 1
    +-- ScenarioError    a scripted schedule cannot be played
    +-- HttpError        a request is refused with an HTTP status (`http.errors`)
    +-- ClientDisconnectedError   the client closed its connection before the response was complete (`http.asgi`)

The engine (`kvsync_mockpod.engine`) and the wire format (`kvsync_events`) have trees of their own.
"""


class MockPodError(Exception):
    """Base of the errors that the pod raises on purpose; the message is one line that an operator can act on."""


class ConfigError(MockPodError):
    """A flag, key or value is refused; the message names the field, its value and what is allowed."""


class StartError(MockPodError):
    """The pod cannot start although its configuration is valid."""


class ScenarioError(MockPodError):
    """A scripted schedule cannot be played; the message names the file, the line and the cause."""
