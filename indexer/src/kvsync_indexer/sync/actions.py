"""What a state machine requests of its follower.

The follower carries out a list in order. If an `Apply` fails at some sequence number, it drops the rest of that list
and calls `apply_failed`, which returns a new list.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a new event socket in place of any open one. Batches and connection changes carry `link` from now on."""

    link: int


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close every open socket."""


@dataclass(frozen=True, slots=True)
class RequestReplay:
    """Request the batches from `start` on a fresh replay socket; the answers carry `attempt`."""

    attempt: int
    start: int


@dataclass(frozen=True, slots=True)
class CancelReplay:
    """Close the replay socket."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply payloads with consecutive sequence numbers, the first of which is `first_seq`."""

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
    """Write one structured log line; `level` names a method of a structlog logger."""

    level: str
    event: str
    fields: dict[str, object] = field(default_factory=dict)


Action = Connect | Disconnect | RequestReplay | CancelReplay | Apply | Clear | Remove | Log
