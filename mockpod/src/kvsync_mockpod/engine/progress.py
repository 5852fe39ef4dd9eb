"""The combined result of the many steps of one `Engine.advance`."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from kvsync_mockpod.engine.api import FinishReason


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
    """Results of an advance. Times are those at which the output of a step becomes available."""

    steps: int = 0
    now: float = 0.0
    first_tokens: list[tuple[str, float]] = field(default_factory=list)
    finished: list[Finish] = field(default_factory=list)
    gaps_us: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    """How often each time between two tokens of one request occurred, in whole microseconds."""
    batches: list[tuple[float, list[Any]]] = field(default_factory=list)
    """What each step published (events, or runs), with the time at which it is published."""
    wait_until: float | None = None
    """End of the transfer of a lower tier before which nothing can be scheduled."""
