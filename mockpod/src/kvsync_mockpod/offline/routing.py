"""Who serves a request: the interface a router has to the replay, and the routers that need no index."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kvsync_mockpod.engine import Event, Request

__all__ = ["LeastRequestRouter", "RandomRouter", "RoundRobinRouter", "Router", "WorkerLoad"]


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """What a router may know of a worker at the moment of a decision."""

    in_flight: int
    """Requests sent there and not ended."""
    tokens_in_flight: int
    """Their prompt tokens."""


class Router(Protocol):
    """Chooses a worker. Decisions come in order of time; events are observed before later decisions."""

    wants_loads: bool
    """Whether `choose` looks at loads: if not, workers are not brought up to date for every decision."""
    wants_events: bool
    """Whether `observe` is to be called (engines then make events)."""

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The worker (from 0) that gets the request."""
        ...

    def observe(self, worker: int, now: float, events: Sequence[Event]) -> None:
        """A worker has published the events of one step at this time."""
        ...


class _Blind:
    wants_events = False

    def observe(self, worker: int, now: float, events: Sequence[Event]) -> None:
        """Not looked at."""


class RoundRobinRouter(_Blind):
    """One after the other."""

    wants_loads = False

    def __init__(self) -> None:
        self._next = 0

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The next in turn."""
        del request, now
        self._next += 1
        return (self._next - 1) % len(loads)


class RandomRouter(_Blind):
    """Uniformly at random, by seed."""

    wants_loads = False

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"router-{seed}")

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """Any."""
        del request, now
        return self._random.randrange(len(loads))


class LeastRequestRouter(_Blind):
    """The worker with the fewest requests in flight, the first of equals."""

    wants_loads = True

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The least loaded."""
        del request, now
        return min(range(len(loads)), key=lambda i: (loads[i].in_flight, i))
