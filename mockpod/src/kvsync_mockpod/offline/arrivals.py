"""When requests arrive: at the trace's times, at a fixed rate or as a Poisson process; at most so many at once."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvsync_mockpod.engine import EngineConfigError

from .trace import TraceRequest

__all__ = ["Arrivals", "arrival_times"]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How requests arrive. `max_in_flight` holds back whoever would be one too many until somebody ends."""

    mode: Literal["trace", "rate", "poisson"] = "trace"
    speed: float = 1.0
    """`trace`: how many times faster than recorded."""
    rate: float = 1.0
    """`rate`, `poisson`: requests a second."""
    max_in_flight: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("trace", "rate", "poisson"):
            raise EngineConfigError(f"arrivals {self.mode!r}: must be trace, rate or poisson")
        for name in ("speed", "rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise EngineConfigError(f"{name} {getattr(self, name)}: must be positive and finite")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise EngineConfigError(f"max_in_flight {self.max_in_flight}: must be at least 1")


def arrival_times(requests: Sequence[TraceRequest], arrivals: Arrivals, seed: int) -> list[float]:
    """Arrival of each request in seconds, from 0 on, never decreasing; the cap is not looked at here."""
    if arrivals.mode == "trace":
        first = requests[0].arrival_s
        return [(r.arrival_s - first) / arrivals.speed for r in requests]
    if arrivals.mode == "rate":
        return [i / arrivals.rate for i in range(len(requests))]
    rng, now, out = random.Random(f"arrivals-{seed}"), 0.0, []
    for _ in requests:
        out.append(now)
        now += rng.expovariate(arrivals.rate)
    return out
