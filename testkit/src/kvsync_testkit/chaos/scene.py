"""What a probe may look at: the places of both pairs now and before the injection, and a tap on each event stream."""

import functools
import json
from dataclasses import dataclass, field
from typing import Any

from kvsync_testkit.chaos.backend import Backend, Pair, Place
from kvsync_testkit.chaos.errors import ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.means import PROBE
from kvsync_testkit.chaos.shellout import run
from kvsync_testkit.chaos.tap import Tap
from kvsync_testkit.waiting import wait_until


@dataclass
class Scene:
    """One fault under observation."""

    backend: Backend
    fault: Fault
    pair: Pair
    before: dict[str, Place] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    """Bytes in use by engine before the injection."""
    taps: dict[str, Tap] = field(default_factory=dict)
    tapped_from: dict[str, int] = field(default_factory=dict)
    """By engine, the length of its transition log when the probe was first taken."""
    seen_from: dict[str, int] = field(default_factory=dict)
    """By engine, the number of frames that its tap had at the injection."""

    def remember(self) -> None:
        """Note how things are before the injection."""
        engines = list(self.backend.engines())
        others = ("index", "operator") if self.fault.kind == "operator_kill" else ("index",)
        for name in (*engines, *others):
            self.before[name] = self.backend.place(name)
        if self.fault.kind == "plane" or "rules" in self.fault.settings:
            for name in engines:
                place = self.before[name]
                self.taps[name] = Tap(place.address, place.events, place.replay, self.before["index"].namespace)
            for name, tap in self.taps.items():
                wait_until(f"the tap on {name} hears something", functools.partial(_heard, tap), deadline_s=20.0)
            self.mark()

    def mark(self) -> None:
        """Note the moment of the injection."""
        for name, tap in self.taps.items():
            self.seen_from[name] = len(tap.arrivals)
            self.tapped_from[name] = len(self.log(name))

    def now(self, name: str) -> Place | None:
        """Return where a component runs now, None if it is gone."""
        try:
            return self.backend.place(name)
        except (KeyError, OSError, ChaosError):
            return None

    def from_index(self, verb: str, host: str, argument: int) -> dict[str, Any]:
        """Run a measurement of `probe.py` in the network namespace of the index."""
        index = self.backend.place("index")
        found: dict[str, Any] = json.loads(run([*index.inside, *PROBE, verb, host, str(argument)], timeout_s=40.0))
        return found

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return the transition log of an engine."""
        answer = self.backend.call(name, "GET", "/debug/kv/log?since=0", timeout_s=10.0)
        return [json.loads(line) for line in answer.data.splitlines() if line.strip()]

    def close(self) -> None:
        """Close the taps."""
        for tap in self.taps.values():
            tap.close()


def _heard(tap: Tap) -> bool:
    return bool(tap.arrivals)
