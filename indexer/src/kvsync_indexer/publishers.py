"""What the index is told about a publisher, whoever tells it: a file or discovery."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PublisherSpec:
    """One event stream: one data-parallel rank of one pod."""

    name: str
    """Unique in the index."""
    model: str
    endpoint: str
    """ZMQ endpoint of the event stream: connected to, or bound with `bind`."""
    pod: str = ""
    rank: int = 0
    replay_endpoint: str | None = None
    bind: bool = False
    topic: str | None = None
    """Subscription prefix; None takes the service's."""
    epoch: str | None = None
    """Identity of the process where known from outside: pod UID, restart count and rank."""
    debug_url: str | None = None
    http_url: str | None = None
    ready: bool = True
    """False: followed, never matched."""
    source: str = "file"

    def same_stream(self, other: "PublisherSpec") -> bool:
        """The same sockets serve both."""
        mine = (self.endpoint, self.replay_endpoint, self.bind, self.topic, self.model)
        return mine == (other.endpoint, other.replay_endpoint, other.bind, other.topic, other.model)


class PublisherSink(Protocol):
    """Takes publishers as sources find and lose them. Every method may be called from any thread."""

    def add(self, spec: PublisherSpec) -> None:
        """Follow a publisher, or take over changes to it (another epoch fences the old one)."""

    def remove(self, name: str) -> None:
        """Forget a publisher at once."""


class SpecSet:
    """Turns one source's full lists into additions and removals."""

    def __init__(self, sink: PublisherSink) -> None:
        self._sink = sink
        self._specs: dict[str, PublisherSpec] = {}

    def replace(self, specs: list[PublisherSpec]) -> tuple[int, int]:
        """Make `specs` this source's publishers. Returns (added or changed, removed)."""
        wanted = {spec.name: spec for spec in specs}
        gone = [name for name in self._specs if name not in wanted]
        changed = [spec for name, spec in wanted.items() if self._specs.get(name) != spec]
        for name in gone:
            self._sink.remove(name)
        for spec in changed:
            self._sink.add(spec)
        self._specs = wanted
        return len(changed), len(gone)
