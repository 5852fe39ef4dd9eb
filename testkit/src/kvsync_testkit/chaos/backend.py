"""What a backend provides: a running system, the means to break it, and access for independent probes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kvsync_testkit.chaos.errors import ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.kube import Answer
from kvsync_testkit.waiting import wait_until


@dataclass(frozen=True)
class Place:
    """Where a component runs, as probes need to know it."""

    name: str
    address: str
    inside: tuple[str, ...] = ()
    """Prefix of a command that runs in the component's network namespace."""
    identity: str = ""
    """Changes when the component is replaced by another one, such as the UID of a pod."""
    pids: tuple[int, ...] = ()
    """Its processes, as this machine numbers them; empty if it cannot see them or there are none."""
    http: int = 8000
    events: int = 5557
    replay: int = 5558
    namespace: str = ""
    """File of the network namespace from which this machine must connect to the component; empty for its own."""
    volume: str = ""
    """Folder on this machine that the component has as its snapshot volume; empty if it has none."""
    through: tuple[str, int] | None = None
    """Host and port by which the index reaches the event socket, if not directly."""

    @property
    def route(self) -> tuple[str, int]:
        """Host and port by which the index reaches the event socket."""
        return self.through or (self.address, self.events)


@dataclass(frozen=True)
class Pair:
    """The engine to which the fault is done, and one to which nothing must happen."""

    affected: str
    control: str


class Backend(Protocol):
    """One way to run and break the system."""

    name: str

    def preflight(self, fault: Fault) -> None:
        """Raise CapabilityError, naming what is missing, if the fault cannot be injected here."""

    def start(self, fault: Fault) -> None:
        """Bring up a system for the fault, or keep the running one if it has the right settings."""

    def stop(self) -> None:
        """End everything that was started."""

    def discard(self) -> None:
        """Start a fresh system for the next fault, because this one may be damaged."""

    def engines(self) -> Sequence[str]:
        """Return the names of the engines that should run now, as the index calls their pods."""

    def pair(self, fault: Fault) -> Pair:
        """Return the affected engine and the control. From the injection until the next start it stays the same."""

    def place(self, name: str) -> Place:
        """Return where an engine or the `index` runs now."""

    def apply(self, fault: Fault) -> None:
        """Inject the fault."""

    def injected(self, fault: Fault) -> bool:
        """Return whether the backend's own mechanism says that the fault is in place; this is never taken as proof."""

    def heal(self, fault: Fault) -> None:
        """Take the fault away."""

    def call(self, target: str, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> Answer:
        """Send a request to an engine, the `index` or the `router`; raise OSError if there is no answer in time."""

    def cuts_both_ways(self, fault: Fault) -> bool:
        """Return whether a fault that silences an engine stops packets in both directions here."""

    def router_shares_index(self) -> bool:
        """Return whether the router runs in the process of the index, and dies with it."""


class Remembered(ABC):
    """What the backends have in common: the pair of a fault, and the fault plane of the mock engine."""

    _pair: Pair | None = None

    @abstractmethod
    def engines(self) -> Sequence[str]:
        """Return the names of the engines."""

    @abstractmethod
    def call(self, target: str, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> Answer:
        """Send a request to a component."""

    def pair(self, fault: Fault) -> Pair:
        """Return the first two engines by name, as they were at the injection."""
        del fault
        engines = self.engines()
        return self._pair or Pair(engines[0], engines[1])

    def cuts_both_ways(self, fault: Fault) -> bool:
        """Return True."""
        del fault
        return True

    def set_plan(self, engine: str, fault: Fault) -> None:
        """Give an engine the fault plan of a fault that has one; raise ChaosError if it is refused."""
        if "rules" in fault.settings:
            plan = {"seed": 7, "faults": list(fault.settings["rules"])}
            answer = self.call(engine, "PUT", "/debug/faults", plan)
            if answer.status >= 300:
                raise ChaosError(f"{engine} refused the fault plan: {answer.data.decode(errors='replace')}")

    def reset_cache(self, engine: str) -> None:
        """Have an engine forget its cache, which it refuses while requests hold blocks."""
        wait_until(
            f"{engine} resets its cache",
            lambda: self.call(engine, "POST", "/reset_prefix_cache", timeout_s=5.0).json()["success"],
            deadline_s=30.0,
            every_s=0.02,
            retry_on=(OSError, KeyError, ValueError),
        )

    def clear_plan(self, fault: Fault) -> None:
        """Take the fault plan away again."""
        if "rules" in fault.settings and self._pair is not None:
            self.call(self._pair.affected, "DELETE", "/debug/faults")
