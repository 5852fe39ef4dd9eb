"""When requests arrive: as in the trace, at a fixed rate, or as a Poisson process.

Whichever it is, the first request arrives at 0.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from kvsync_workload.errors import SettingError
from kvsync_workload.trace import TraceRequest

ArrivalKind = Literal["trace", "rate", "poisson"]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """How arrival times are made. Raises SettingError for a value outside its range."""

    kind: ArrivalKind = "trace"
    speed: float = 1.0
    """For `trace`: how many times faster than recorded."""
    rate: float = 1.0
    """For `rate` and `poisson`: requests per second."""
    max_in_flight: int | None = None
    """A request that would exceed this number waits until another one ends, whatever its arrival time."""

    def __post_init__(self) -> None:
        if self.kind not in ("trace", "rate", "poisson"):
            raise SettingError(f"arrivals {self.kind!r}: must be trace, rate or poisson")
        for name, value in (("speed", self.speed), ("rate", self.rate)):
            if not 0 < value < float("inf"):
                raise SettingError(f"{name} {value}: must be positive and finite")
        if self.max_in_flight is not None and self.max_in_flight < 1:
            raise SettingError(f"max_in_flight {self.max_in_flight}: must be at least 1")

    def describe(self) -> dict[str, object]:
        """The settings in effect, as JSON values for a report."""
        factor = {"speed": self.speed} if self.kind == "trace" else {"rate": self.rate}
        return {"kind": self.kind, **factor, "max_in_flight": self.max_in_flight}


def arrival_times(requests: Sequence[TraceRequest], arrivals: Arrivals, seed: int) -> list[float]:
    """Seconds since the start, one value per request, never decreasing; `max_in_flight` does not affect them."""
    if arrivals.kind == "trace":
        return [request.arrival_s / arrivals.speed for request in requests]
    if arrivals.kind == "rate":
        return [number / arrivals.rate for number in range(len(requests))]
    rng = random.Random(f"arrivals-{seed}")  # a stream of its own: routers and workloads take the same seed
    now = 0.0
    times: list[float] = []
    for _ in requests:
        times.append(now)
        now += rng.expovariate(arrivals.rate)
    return times
