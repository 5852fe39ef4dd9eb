"""One replay in progress: what it is for, when it has been silent too long, what it has shown so far."""

from dataclasses import dataclass
from enum import Enum, auto


class Purpose(Enum):
    """Why a replay was asked for."""

    SYNC = auto()
    """From the start of a process's history. Trust waits for it."""
    CATCH_UP = auto()
    """From a little before the next expected batch. Trust waits for it."""
    VERIFY = auto()
    """The same on a trusted, quiet publisher: nothing waits for it."""
    REPAIR = auto()
    """The whole history again, for a trusted but incomplete publisher: nothing waits for its first answer."""


@dataclass(slots=True)
class Session:
    """A replay request and its answers so far."""

    attempt: int
    purpose: Purpose
    start: int
    begun: float
    deadline: float
    expect: int = -1
    """The last batch applied when it was asked: a server of the same process has it, -1 for none."""
    failures: int = 0
    """Attempts in a row that brought nothing new."""
    items: int = 0
    fresh: int = 0
    """Items of this attempt that were applied."""
    proven: bool = False
    """An item equalled a batch applied before: the same process is answering."""
    last_item: int = -1

    @property
    def absent(self) -> bool:
        """At the end: the server never came to a batch that its process must have."""
        return self.last_item < self.expect

    @property
    def required(self) -> bool:
        """Trust waits for this replay."""
        return self.purpose in (Purpose.SYNC, Purpose.CATCH_UP)
