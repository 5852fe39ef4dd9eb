"""What a machine asks its driver to do.

The driver carries a list out in order. If an `Apply` fails at some sequence number it drops the rest of that list
and tells the machine with `apply_failed`, which answers with a new list.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Connect:
    """Close the event socket if open and open a new one. Frames and events carry `link` from now on."""

    link: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the event socket and any replay socket."""


@dataclass(frozen=True, slots=True)
class RequestReplay:
    """Ask the replay server for batches from `start` on a fresh socket; answers carry `attempt`."""

    attempt: int
    start: int


@dataclass(frozen=True, slots=True)
class CancelReplay:
    """Close the replay socket."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply payloads with consecutive sequence numbers from `first_seq`."""

    first_seq: int
    payloads: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Clear:
    """Forget every block of the publisher."""

    reason: str


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget the publisher itself."""


@dataclass(frozen=True, slots=True)
class Log:
    """One structured log line; `level` is a structlog method name."""

    level: str
    event: str
    fields: dict[str, object] = field(default_factory=dict)


Action = Connect | Disconnect | RequestReplay | CancelReplay | Apply | Clear | Remove | Log
