"""The faults of a soak run, one at a time, chosen by the seed.

Every fault here is one from which the index promises to recover exactly (I1), or to drop what it cannot know and to say
so (I2). The faults that no subscriber can notice are in `PLANTED`.
"""

import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from soak_load import build_prompt
from soak_processes import MODEL, Engine, Plant

Wait = Callable[[float], bool]
"""Waits for some seconds, and returns whether the run was interrupted."""
DIRECT_EVERY_S = 0.25


@dataclass(frozen=True)
class Injection:
    """What was done, to whom, and how often it took effect."""

    name: str
    target: str
    count: int


@dataclass(frozen=True)
class Choice:
    """One fault with its target."""

    name: str
    target: Engine


PLANS: dict[str, list[dict[str, object]]] = {
    "drop": [{"kind": "drop", "rate": 0.2}],
    "duplicate": [{"kind": "duplicate", "rate": 0.3, "times": 3}],
    "reorder": [{"kind": "reorder", "rate": 0.3}],
    "delay": [{"kind": "delay", "ms": 400, "rate": 0.2}],
    "truncate": [{"kind": "truncate", "rate": 0.05}],
    "oversize": [{"kind": "oversize", "rate": 0.02, "size": 65536}],
    "stall": [{"kind": "stall", "ms": 3000}],
    "rebind": [{"kind": "rebind", "ms": 1000}],
    "restart": [{"kind": "restart", "blocks": "lost"}],
    "replay_slow": [{"kind": "drop", "rate": 0.1}, {"kind": "replay_slow", "ms": 50}],
    "replay_silent": [{"kind": "drop", "rate": 0.1}, {"kind": "replay_silent"}],
    "replay_truncate": [{"kind": "drop", "rate": 0.1}, {"kind": "replay_truncate", "replies": 3}],
}
"""Fault plans of the mock engine, by name (docs/mockpod.md)."""
PLANTED: dict[str, list[dict[str, object]]] = {
    "drop_unnumbered": [{"kind": "drop_unnumbered", "rate": 0.3}],
    "corrupt": [{"kind": "corrupt", "rate": 0.05, "count": 4}],
}
"""Faults that no subscriber can notice: a batch that was lost before it got a number, and changed bytes that happen to
be those of a hash. They are injected only by `--only`, to show that a run can fail."""


def inject_plan(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> int:
    """Give the engine a fault plan for a while, and return how often its faults fired.

    The engine also gets requests directly, because the router may have no reason to send it any in this time.
    """
    engine = choice.target
    before = total(engine)
    engine.ok("PUT", "/debug/faults", {"seed": 1, "faults": {**PLANS, **PLANTED}[choice.name]})
    chance = random.Random(engine.port)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not wait(DIRECT_EVERY_S):
        engine.ok("POST", "/v1/completions", {"model": MODEL, "prompt": build_prompt(chance), "max_tokens": 8})
    engine.ok("DELETE", "/debug/faults")
    return total(engine) - before


def total(engine: Engine) -> int:
    """The number of faults that the engine has injected since it started."""
    return sum(engine.ok("GET", "/debug/faults")["counts"].values())


def kill_engine(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> int:
    choice.target.kill()
    wait(seconds / 2)
    choice.target.start()
    return 1


def stop_engine(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> int:
    choice.target.send(signal.SIGSTOP)
    wait(seconds)
    choice.target.send(signal.SIGCONT)
    return 1


def kill_index(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> int:
    plant.index.kill()
    wait(seconds / 2)
    plant.index.start()
    return 1


def stop_index(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> int:
    plant.index.send(signal.SIGSTOP)
    wait(seconds)
    plant.index.send(signal.SIGCONT)
    return 1


def leave_and_join(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> int:
    """Take the engine out of the publishers file, replace its process, and add it again."""
    plant.members = [engine for engine in plant.engines if engine is not choice.target]
    plant.write_members()
    wait(seconds / 2)
    choice.target.stop()
    choice.target.start()
    plant.members = list(plant.engines)
    plant.write_members()
    return 1


ACTIONS: dict[str, Callable[[Plant, Choice, float, Wait], int]] = {
    **dict.fromkeys([*PLANS, *PLANTED], inject_plan),
    "kill_engine": kill_engine,
    "stop_engine": stop_engine,
    "kill_index": kill_index,
    "stop_index": stop_index,
    "leave_and_join": leave_and_join,
}


class Chooser:
    """Chooses faults: all of them in a random order, then all of them again, so that a long run leaves none out."""

    def __init__(self, seed: int, engines: list[Engine], only: Sequence[str] = ()) -> None:
        self._names = sorted(only or ACTIONS.keys() - PLANTED.keys())
        self._chance = random.Random(f"faults {seed}")
        self._engines = engines
        self._left: list[str] = []

    def choose(self) -> Choice:
        if not self._left:
            self._left = list(self._names)
            self._chance.shuffle(self._left)
        return Choice(self._left.pop(), self._chance.choice(self._engines))

    def seconds(self) -> tuple[float, float]:
        """How long the fault lasts, and how long nothing happens after it."""
        return self._chance.uniform(4.0, 10.0), self._chance.uniform(1.0, 4.0)


def inject(plant: Plant, choice: Choice, seconds: float, wait: Wait) -> Injection:
    """Apply a fault for some seconds and take it back."""
    return Injection(choice.name, choice.target.name, ACTIONS[choice.name](plant, choice, seconds, wait))
