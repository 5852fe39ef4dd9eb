"""The one exception tree of the package.

EventsError
├── DecodeError              the payload is no event batch, or is over a limit
├── EncodeError              the batch cannot be sent in the chosen form (vLLM would lose it too)
├── FrameError               the frames around the payload are not what the wire says
├── EndpointError            an endpoint that cannot be shifted by a rank
├── HashingError             an algorithm, seed or key that block hashing does not know
└── UnsupportedVersionError  a vLLM version outside the range whose wire is known
"""


class EventsError(Exception):
    """Base of every error this package raises on purpose."""


class DecodeError(EventsError):
    """The payload is malformed or over a limit; nothing of it may be applied."""


class EncodeError(EventsError):
    """The batch cannot be encoded in this form; a real publisher loses it and uses up a sequence number."""


class FrameError(EventsError):
    """A ZMQ message does not have the frames of the wire."""


class EndpointError(EventsError):
    """An endpoint has no port to shift, or a transport that knows no ranks."""


class HashingError(EventsError, ValueError):
    """Unknown hash algorithm, unusable seed or unusable extra key."""


class UnsupportedVersionError(EventsError, ValueError):
    """A vLLM version that has no KV events, is newer than what was checked, or is no version at all."""
