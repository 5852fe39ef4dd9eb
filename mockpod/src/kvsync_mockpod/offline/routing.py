"""The interface between a replay and its router, and the routers that need no index."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kvsync_mockpod.engine import Published, Request


@dataclass(frozen=True, slots=True)
class WorkerLoad:
    """The load of a worker at the moment of a decision."""

    in_flight: int
    """Requests sent there that have not ended."""
    tokens_in_flight: int
    """Prompt tokens of those requests."""


class Router(Protocol):
    """Chooses a worker for each request. Decisions and observations are made in order of time."""

    wants_loads: bool
    """Whether `choose` reads the loads. If not, the replay need not advance all workers before each decision."""
    wants_events: bool
    """Whether engines publish the events of the wire and `observe` is called with them."""
    wants_runs: bool
    """Whether `observe` is called with runs of blocks instead (`kvsync_events.runs`), which cost far less."""

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """Return the number of the worker, from 0, that is to serve the request."""
        ...

    def observe(self, worker: int, now: float, events: Sequence[Published]) -> None:
        """Take note of what a worker published at `now`, those of one step."""
        ...


class _Blind:
    wants_events = False
    wants_runs = False

    def observe(self, worker: int, now: float, events: Sequence[Published]) -> None:
        """Events are ignored."""


class RoundRobinRouter(_Blind):
    """Uses all workers in turn."""

    wants_loads = False

    def __init__(self) -> None:
        self._next = 0

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The next worker."""
        del request, now
        self._next += 1
        return (self._next - 1) % len(loads)


class RandomRouter(_Blind):
    """Chooses uniformly at random, reproducibly for one seed."""

    wants_loads = False

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"router-{seed}")

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """Any worker."""
        del request, now
        return self._random.randrange(len(loads))


class LeastRequestRouter(_Blind):
    """The worker with the fewest requests in flight, the first of equals."""

    wants_loads = True

    def choose(self, request: Request, now: float, loads: Sequence[WorkerLoad]) -> int:
        """The worker with the fewest requests."""
        del request, now
        return min(range(len(loads)), key=lambda i: (loads[i].in_flight, i))
