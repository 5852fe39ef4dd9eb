"""What a schedule is played against: how to make the state machine, the core and the follower under test."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from kvsync_indexer.core import IndexCore, make_core
from kvsync_indexer.sync import Follower, PublisherMachine, SyncSettings

MachineFactory = Callable[[str, SyncSettings, float], PublisherMachine]
CoreFactory = Callable[[], IndexCore]


def build_machine(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    """Make the real state machine, following epoch `0`."""
    return PublisherMachine(name, settings, now=now, epoch="0")


def build_core() -> IndexCore:
    """Make the real core in Python, which is always installed."""
    return make_core("python")


def build_native_core() -> IndexCore:
    """Make the real core in Rust. Raises CoreUnavailableError where it is not installed."""
    return make_core("native")


@dataclass(frozen=True, slots=True)
class Subject:
    """The parts under test; the real ones unless a planted bug replaces one."""

    machine: MachineFactory = build_machine
    core: CoreFactory = build_core
    follower: type[Follower] = Follower

    def on(self, core: CoreFactory) -> "Subject":
        """Return the same with another core."""
        return replace(self, core=core)


REAL = Subject()
