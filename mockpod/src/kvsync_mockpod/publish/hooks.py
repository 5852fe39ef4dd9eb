"""What an event publisher needs from the rank that it publishes for."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublisherHooks:
    """The rank's clocks, and how faults reach its engine."""

    clock_s: Callable[[], float]
    """Monotonic time in seconds; delays are measured with it."""
    wall_s: Callable[[], float]
    """Unix time in seconds; batches are stamped with it."""
    log_position: Callable[[], int]
    """Number that the engine's next transition log entry will have."""
    lose_blocks: Callable[[], None]
    """Empty the cache as a crash does."""
