"""The exceptions of the package.

EventsError
├── CurveKeyError            a file or a text that is no CURVE key
├── DecodeError              a payload that is not an event batch, or that exceeds a limit
├── EncodeError              a batch that cannot be sent in the chosen form
├── FrameError               a ZMQ message that does not have the frames of the wire
├── EndpointError            an endpoint that cannot serve a rank
├── HashingError             an algorithm, seed or key that block hashing does not know
├── TextError                a text, a conversation or token ids that the mock model refuses
└── UnsupportedVersionError  a vLLM version outside the range whose wire is known
"""


class EventsError(Exception):
    """The base class of all errors of this package."""


class CurveKeyError(EventsError, ValueError):
    """The text is no CURVE key, or the file does not hold what it should."""


class DecodeError(EventsError):
    """The payload is malformed or exceeds a limit; a reader must not apply any part of it."""


class EncodeError(EventsError):
    """The batch cannot be encoded in this form; vLLM loses such a batch and uses up its sequence number."""


class FrameError(EventsError):
    """A ZMQ message does not have the frames of the wire."""


class EndpointError(EventsError):
    """The endpoint has no port that can be shifted, or its transport has no ranks."""


class HashingError(EventsError, ValueError):
    """The hash algorithm is unknown, or the seed or an extra key cannot be used."""


class UnsupportedVersionError(EventsError, ValueError):
    """The text is not a vLLM version, or the version has no KV events or is newer than those that were checked."""


class TextError(EventsError, ValueError):
    """The mock model's tokenizer or chat template refuses a text, a conversation or token ids."""
