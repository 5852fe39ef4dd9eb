"""The errors the pod's outer parts raise, in one tree.

    MockPodError
    +-- ConfigError      a flag, key or value the pod refuses; exit code 2
    +-- StartError       the configuration is fine but the pod cannot start (port in use); exit code 1
    +-- TextError        text or token ids the tokenizer refuses

The engine has its own tree (`kvsync_mockpod.engine`), the wire its own (`kvsync_events`).
"""


class MockPodError(Exception):
    """Anything the pod itself refuses or cannot do; the message is one line for a person."""


class ConfigError(MockPodError):
    """A bad flag, key or value: names the field, the value and what is allowed."""


class StartError(MockPodError):
    """The pod cannot start although its configuration is valid."""


class TextError(MockPodError):
    """Text or token ids that the tokenizer does not accept."""
