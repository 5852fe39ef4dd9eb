"""What many steps brought together: first tokens, ends, times between tokens, events by step."""

from collections import defaultdict
from dataclasses import dataclass, field

from kvsync_mockpod.engine.api import Event, FinishReason


@dataclass(frozen=True, slots=True)
class Finish:
    """A request that ended during an advance."""

    request_id: str
    reason: FinishReason
    at_s: float
    output_tokens: int
    cached_tokens: int
    preemptions: int


@dataclass(slots=True)
class Progress:
    """What many steps brought. Times are those at which a step's output is out."""

    steps: int = 0
    now: float = 0.0
    first_tokens: list[tuple[str, float]] = field(default_factory=list)
    finished: list[Finish] = field(default_factory=list)
    gaps_us: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """Times between two tokens of one request in whole microseconds, and how often each occurred."""
    batches: list[tuple[float, list[Event]]] = field(default_factory=list)
    """Events by step, with the time at which they are published."""
    wait_until: float | None = None
    """Nothing can be scheduled before a transfer of a lower tier ends."""
