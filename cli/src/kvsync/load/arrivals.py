"""When requests arrive: as in the trace, at a fixed rate, or at random with a mean rate."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvsync.load.trace import TraceRequest

ArrivalKind = Literal["trace", "rate", "poisson"]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How arrival times are made; `max_in_flight` caps what runs at once, whatever the times say."""

    kind: ArrivalKind = "trace"
    speed: float = 1.0
    """trace: how many times faster than written."""
    rate: float = 1.0
    """rate, poisson: requests a second."""
    max_in_flight: int | None = None

    def describe(self) -> dict[str, object]:
        """What a report says about it."""
        how: dict[str, object] = {"kind": self.kind}
        how["speed" if self.kind == "trace" else "rate"] = self.speed if self.kind == "trace" else self.rate
        return how | {"max_in_flight": self.max_in_flight}


def arrival_times(requests: Sequence[TraceRequest], arrivals: Arrivals, seed: int) -> list[float]:
    """Seconds after the start, never falling, one a request."""
    if arrivals.kind == "trace":
        return [request.timestamp_ms / 1000 / arrivals.speed for request in requests]
    if arrivals.kind == "rate":
        return [number / arrivals.rate for number in range(len(requests))]
    rng = random.Random(seed)
    now = 0.0
    times: list[float] = []
    for _ in requests:
        now += rng.expovariate(arrivals.rate)
        times.append(now)
    return times
