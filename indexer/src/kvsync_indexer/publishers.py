"""Publishers as their sources, a file or discovery, describe them to the index."""

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from kvsync_events import Removals
from kvsync_indexer.tokenizer_choice import TokenizerChoice

ChatFormat: TypeAlias = Literal["template", "harmony"]
"""How an engine turns messages into a prompt: with the chat template of the tokenizer, or as OpenAI's gpt-oss needs."""


@dataclass(frozen=True, slots=True)
class PublisherSpec:
    """One event stream, which is one data-parallel rank of one pod."""

    name: str
    """Unique in the index."""
    model: str
    endpoint: str
    """ZMQ endpoint of the event stream, which the index connects to, or binds if `bind` is set."""
    pod: str = ""
    rank: int = 0
    replay_endpoint: str | None = None
    bind: bool = False
    topic: str | None = None
    """Subscription prefix; None stands for the one of the service."""
    epoch: str | None = None
    """Identity of the engine process, if discovery knows it: pod UID, restart count and rank."""
    debug_url: str | None = None
    http_url: str | None = None
    http_rank: int | None = None
    """Number of the rank in `X-data-parallel-rank`, if the front end at `http_url` counts differently from `rank`."""
    removals: Removals | None = None
    """Which removals of blocks the engine announces; None: as its version says, or else as events show."""
    ready: bool = True
    """False: the pod takes no traffic. Its events are followed, but it is never matched."""
    source: str = "file"
    api_key: str | None = field(default=None, repr=False)
    """Key of the engine's HTTP API; None stands for the one of the service. It is in no answer and no log line."""

    tokenizer: TokenizerChoice | None = None
    """Tokenizer of the model; None stands for the one of the service."""
    server_key: str | None = None
    """The publisher's CURVE public key; None for sockets without CURVE."""
    chat_format: ChatFormat = "template"
    excludes_tools: bool = False
    """The engine leaves tools out of a prompt with `tool_choice: none` (`--exclude-tools-when-tool-choice-none`)."""

    def same_stream(self, other: "PublisherSpec") -> bool:
        """Whether the sockets of one can serve the other."""
        mine = (self.endpoint, self.replay_endpoint, self.bind, self.topic, self.model, self.server_key)
        others = (other.endpoint, other.replay_endpoint, other.bind, other.topic, other.model, other.server_key)
        return mine == others


class PublisherSink(Protocol):
    """Takes what sources find and lose. Every method may be called from any thread."""

    def add(self, spec: PublisherSpec) -> None:
        """Follow a publisher, or apply changes to it. A new epoch fences the old one."""

    def remove(self, name: str) -> None:
        """Stop following a publisher, and drop its blocks at once."""


class SpecSet:
    """Turns the full lists of one source into additions and removals."""

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
