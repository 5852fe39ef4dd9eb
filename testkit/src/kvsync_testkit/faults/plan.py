"""What is done to a publisher, and when. A schedule is expanded from its seed, so that a seed is a test case.

The workload has seeds of its own: taking a fault out of a schedule (which is how a failure is made smaller) does not
change what the engines do.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from kvsync_testkit.faults.engine import Workload

Kind = Literal[
    "drop", "duplicate", "reorder", "delay", "corrupt", "bad_frames", "partition", "stall", "disconnect",
    "replay_silent", "replay_slow", "replay_truncated", "replay_skipping", "replay_empty", "replay_other",
    "replay_refused", "replay_holes", "replay_shuffled", "replay_twice", "restart", "index_restart", "mute",
]  # fmt: skip

LASTING: Final[tuple[Kind, ...]] = (
    "drop", "duplicate", "reorder", "delay", "corrupt", "bad_frames", "partition", "stall",
    "replay_silent", "replay_slow", "replay_truncated", "replay_skipping", "replay_empty", "replay_other",
    "replay_refused", "replay_holes", "replay_shuffled", "replay_twice",
)  # fmt: skip
POINTS: Final[tuple[Kind, ...]] = ("disconnect", "restart", "restart", "index_restart")

Restart = Literal["in_place", "silent", "epoch_first", "epoch_late"]
"""How a restart shows. `in_place`: only the connection breaks. `silent`: a proxy keeps even the connection, and the
sequence goes backwards. `epoch_first`, `epoch_late`: discovery names an epoch before or after the stream shows it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault on the faulted publisher, from `at_s` for `for_s` seconds."""

    kind: Kind
    at_s: float
    for_s: float = 0.0
    rate: float = 0.0
    """Share of batches, requests or items that it concerns."""
    how: Restart = "in_place"
    same_hashes: bool = False
    """The new process has the same hash seed."""
    burst: int = 0
    """Batches that the new process publishes before the index can connect: it may overtake its predecessor."""

    def __str__(self) -> str:
        more = (
            f" {self.how}{' same hashes' if self.same_hashes else ''} burst {self.burst}"
            if self.kind == "restart"
            else ""
        )
        rate = f" {self.rate:.0%}" if self.rate else ""
        return f"{self.at_s:6.3f} s {self.kind}{rate}{f' for {self.for_s:.3f} s' if self.for_s else ''}{more}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Everything a run depends on."""

    seed: int
    workload: Workload
    replay: bool = True
    """The faulted publisher has a replay endpoint."""
    buffer_steps: int = 1000
    join_after: int = 0
    """Batches published before the index starts."""
    pace_s: float = 0.02
    """Mean time between batches, in seconds."""
    faulty_s: float = 3.0
    nudges: int = 0
    """Batches published after the faults have ended; with 0 the publisher stays silent."""
    small_buffers: bool = False
    """The index keeps only a few live batches during a replay."""
    departs: bool = False
    """The publisher is removed at the end, while batches of it are still on the way."""
    busy_s: float = 0.0
    """The index reads the event socket up to this much later than messages arrive, and then many at once."""
    monitor_lag_s: float = 0.0
    """The index is told of connection changes up to this much later than they happen."""
    late_reads: bool = False
    """What a socket had received when it was closed is handed in all the same, under its old number."""
    loses_tail: bool = False
    """The last batch before the silence is lost on the way."""
    heartbeats: bool = True
    """The path answers heartbeats; without them silence is the only sign, and the publisher goes on publishing."""
    faults: tuple[Fault, ...] = field(default=())

    def __str__(self) -> str:
        faults = "".join(f"\n    {fault}" for fault in self.faults) or "\n    (no fault)"
        plain = (
            "replay", "buffer_steps", "join_after", "nudges", "small_buffers", "departs", "busy_s", "monitor_lag_s",
            "late_reads", "loses_tail", "heartbeats",
        )  # fmt: skip
        options = ", ".join(f"{name} {getattr(self, name)}" for name in plain)
        times = f"pace {self.pace_s:g} s, faulty for {self.faulty_s:g} s"
        return f"seed {self.seed}: {options}, {times}\n  {self.workload}\n  faults:{faults}"

    def without(self, fault: Fault) -> "Schedule":
        """Return the same schedule with one fault fewer."""
        return replace(self, faults=tuple(other for other in self.faults if other is not fault))


_RESTARTS: Final[tuple[Restart, ...]] = ("in_place", "silent", "epoch_first", "epoch_late")


def expand_schedule(seed: int) -> Schedule:
    """Return the schedule of a seed."""
    rng = random.Random(f"schedule/{seed}")
    replay = rng.random() < 0.85
    workload = Workload(
        capacity=rng.choice((8, 16, 32)),
        chains=rng.choice((3, 6)),
        host_tier=rng.random() < 0.3,
        reports=rng.random() < 0.2,
        lost_batches=rng.choice((0.0, 0.0, 0.0, 0.01)),
        poisoned_batches=rng.choice((0.0, 0.0, 0.0, 0.01)),
        wire_version=rng.choice(("0.10.2", "0.23.0", "0.25.1", "0.33.0")),
    )
    new_kinds = random.Random(f"new kinds/{seed}")  # of its own, so that it changes nothing for the other faults
    workload = replace(workload, unknown_events=new_kinds.choice((0.0,) * 9 + (0.02,)))
    heartbeats = rng.random() < 0.9
    faulty_s = rng.choice((1.0, 3.0)) if heartbeats else 5.0
    faults = sorted((_fault(rng, faulty_s, replay) for _ in range(rng.choice((1, 1, 2, 3, 5)))), key=lambda f: f.at_s)
    if any(fault.how == "silent" for fault in faults):
        # An unbroken connection to a new process and a replay from the old one: nothing could tell them apart.
        faults = [fault for fault in faults if fault.kind != "replay_other"]
    if not heartbeats:
        faults.append(Fault(rng.choice(("partition", "stall")), rng.uniform(0.2, 1.0), for_s=3.5, rate=1.0))
    if replay and heartbeats and new_kinds.random() < 0.06:
        # Alone, because a check that gets no answer cannot show that live batches do not arrive.
        workload = replace(workload, poisoned_batches=0.0)
        faults = [Fault("mute", new_kinds.uniform(0.0, 1.0), for_s=new_kinds.uniform(1.0, 12.0), rate=1.0)]
    if replay and heartbeats and new_kinds.random() < 0.05:
        # Alone, because a publisher that is refused for it is never in sync again, whatever else happens to it.
        workload = replace(workload, second_rank=0.05, poisoned_batches=0.0, lost_batches=0.0, unknown_events=0.0)
        faults = []
    alone = bool(workload.second_rank) or any(fault.kind == "mute" for fault in faults)
    if replay and heartbeats and not alone and new_kinds.random() < 0.06:
        # Without a replay server no payload comes again.
        workload = replace(workload, lethal_batches=0.004)
    if random.Random(f"removals/{seed}").random() < 0.08:
        workload = replace(workload, last_copy_only=True)
    if not replay and any(fault.kind in ("partition", "drop") for fault in faults):
        # What a silent successor publishes unseen may bring it exactly to the number that is expected next, and without
        # a replay nothing tells it from its predecessor.
        faults = [replace(fault, how="in_place") if fault.how == "silent" else fault for fault in faults]
    blind = not replay or workload.lost_batches > 0
    schedule = Schedule(
        seed=seed,
        workload=workload,
        replay=replay,
        buffer_steps=rng.choice((4, 24, 1000, 1000)),
        join_after=rng.choice((0, 0, 1, 30)),
        pace_s=rng.choice((0.01, 0.03)),
        faulty_s=faulty_s,
        # Without a replay (or after a batch that never left) only a later batch can show that the last one is missing.
        nudges=rng.choice((1, 5)) if blind else rng.choice((0, 0, 1, 5)),
        small_buffers=rng.random() < 0.2,
        departs=rng.random() < 0.1,
        busy_s=rng.choice((0.0, 0.02, 0.1)),
        monitor_lag_s=rng.choice((0.0, 0.0, 0.03)),
        late_reads=rng.random() < 0.3,
        loses_tail=rng.random() < 0.2,
        heartbeats=heartbeats,
        faults=tuple(faults),
    )
    # A history that no longer has a batch of the other rank would show a stream of one rank.
    return replace(schedule, buffer_steps=1000, join_after=0) if workload.second_rank else schedule


def _fault(rng: random.Random, faulty_s: float, replay: bool) -> Fault:
    at = rng.uniform(0.0, faulty_s * 0.8)
    if rng.random() < 0.4:
        kind = rng.choice(POINTS)
        if kind != "restart":
            return Fault(kind, at)
        how = rng.choice(_RESTARTS)
        # A process that overtook its predecessor unseen can be told only by its epoch, or by its replay.
        burst = rng.choice((0, 0, 3, 60)) if how.startswith("epoch") or (how == "in_place" and replay) else 0
        return Fault(
            "restart", at, for_s=rng.choice((0.0, 0.05, 0.5)), how=how, same_hashes=rng.random() < 0.4, burst=burst
        )
    kind = rng.choice(LASTING)
    return Fault(kind, at, for_s=rng.uniform(0.02, faulty_s - at), rate=rng.choice((0.05, 0.3, 1.0)))
