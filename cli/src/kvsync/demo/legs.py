"""The legs of a demo: each policy on untouched engines, so that they compare, and then one leg with a kill."""

from collections.abc import Sequence
from dataclasses import dataclass

KILL_LABEL = "kill -9"


@dataclass(frozen=True, slots=True)
class Leg:
    """One replay of the requests on new processes."""

    policy: str
    kill: bool = False
    """Kill an engine with SIGKILL during the replay, and start it again."""

    @property
    def name(self) -> str:
        """The name for people."""
        return f"{self.policy}, {KILL_LABEL}" if self.kill else self.policy

    @property
    def folder(self) -> str:
        """The name of the folder with the files and logs of the leg."""
        return f"{self.policy}-kill" if self.kill else self.policy


def plan_legs(policies: Sequence[str], *, kill: bool) -> list[Leg]:
    """Return a leg per policy, and one with a kill for `kv`, or for the last policy if `kv` is not among them."""
    legs = [Leg(policy) for policy in policies]
    if kill:
        legs.append(Leg("kv" if "kv" in policies else policies[-1], kill=True))
    return legs
