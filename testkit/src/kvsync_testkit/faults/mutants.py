"""Planted bugs: one or more for every invariant, each of which the judging must find.

A checker that no mutant can fail is no check. Every mutant is the real machine or the real core with one thing wrong,
of the kind that real indexes get wrong.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvsync_events import AllBlocksCleared, BlockRemoved, decode_batch
from kvsync_indexer.core import Applied, BlockRow, Context, IndexCore, Match
from kvsync_indexer.sync import Action, PublisherMachine, SyncSettings
from kvsync_indexer.sync.buffer import LiveBuffer
from kvsync_indexer.sync.position import Position, Verdict
from kvsync_testkit.faults.plan import Schedule
from kvsync_testkit.faults.simulation import (
    CoreFactory,
    MachineFactory,
    build_core,
    build_machine,
    replace_settings,
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug and the invariants of which at least one must report it."""

    name: str
    invariants: frozenset[str]
    machine: MachineFactory = build_machine
    core: CoreFactory = build_core
    when: Callable[[Schedule], bool] = lambda _schedule: True
    """Schedules in which the bug can show at all."""


# -- machines -------------------------------------------------------------------------------------------------------


class _SkipsGapCheck(Position):
    def judge(self, seq: int, payload: bytes) -> Verdict:
        verdict = super().judge(seq, payload)
        return Verdict.NEXT if verdict is Verdict.AHEAD else verdict


class _AppliesDuplicates(Position):
    def judge(self, seq: int, payload: bytes) -> Verdict:
        verdict = super().judge(seq, payload)
        return Verdict.NEXT if verdict is Verdict.DUPLICATE else verdict


def _with_position(kind: type[Position]) -> MachineFactory:
    def build(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
        machine = build_machine(name, settings, now)
        machine.position = kind(settings.ring)
        return machine

    return build


def _never_stale(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    return build_machine(name, replace_settings(settings, {"stale_after_s": 1e9}), now)


def _unbounded_buffer(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    machine = build_machine(name, settings, now)
    machine.buffer = LiveBuffer(1_000_000_000, 1_000_000_000)
    return machine


class _StaysAfterRemoval(PublisherMachine):
    def removed(self, now: float) -> list[Action]:
        del now
        return []


def _stays(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    return _StaysAfterRemoval(name, settings, now=now, epoch="0")


# -- cores ----------------------------------------------------------------------------------------------------------


class _Wrapped:
    """A core that hands everything on."""

    def __init__(self) -> None:
        self.core = build_core()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever the core has
        return getattr(self.core, name)


class _IgnoresClears(_Wrapped):
    """AllBlocksCleared does nothing."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        batch = decode_batch(payload)
        batch.events = [event for event in batch.events if not isinstance(event, AllBlocksCleared)]
        return self.core.apply_batch(publisher, batch)


class _KeepsDeadBlocks(_Wrapped):
    """What the machine wants forgotten (dead processes, gaps out of reach) stays."""

    def clear_publisher(self, publisher: str) -> int:
        del publisher
        return 0


class _ForgetsCopies(_Wrapped):
    """A set: the first removal takes all copies."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        batch = decode_batch(payload)
        for event in [event for event in batch.events if isinstance(event, BlockRemoved)]:
            batch.events += [BlockRemoved(event.block_hashes, event.medium)] * 8
        return self.core.apply_batch(publisher, batch)


class _SharesOneMap(_Wrapped):
    """All publishers in one table."""

    def apply(self, publisher: str, payload: bytes) -> Applied:
        done = self.core.apply(publisher, payload)
        for other in self.core.publishers():
            if other != publisher:
                self.core.apply(other, payload)
        return done

    def dump(self, publisher: str) -> Iterator[BlockRow]:
        return self.core.dump(publisher)


class _MatchesTooMuch(_Wrapped):
    """One block more than is there, as a prefix walk without the last check does."""

    def match(self, context: Context, tokens: Any, publishers: Collection[str] | None = None) -> Sequence[Match]:  # noqa: ANN401
        found = self.core.match(context, tokens, publishers)
        return [one._replace(blocks=one.blocks + 1, tokens=one.tokens + one.block_size) for one in found]


class _ClearsEverybody(_Wrapped):
    """Dropping one publisher's blocks drops those of all."""

    def clear_publisher(self, publisher: str) -> int:
        return sum(self.core.clear_publisher(name) for name in [publisher, *self.core.publishers()])


def _core(kind: Callable[[], Any]) -> CoreFactory:
    def build() -> IndexCore:
        core: IndexCore = kind()
        return core

    return build


def _restarts(schedule: Schedule) -> bool:
    return any(fault.kind == "restart" for fault in schedule.faults)


MUTANTS = (
    Mutant("skips the gap check", frozenset({"I1", "I2"}), machine=_with_position(_SkipsGapCheck)),
    Mutant("keeps blocks whose removal was lost", frozenset({"I2"}), core=_core(_KeepsDeadBlocks)),
    Mutant("forgets copies", frozenset({"I3"}), core=_core(_ForgetsCopies)),
    Mutant("shares one map", frozenset({"I4"}), core=_core(_SharesOneMap)),
    Mutant("applies duplicates", frozenset({"I5"}), machine=_with_position(_AppliesDuplicates)),
    Mutant("keeps a dead epoch", frozenset({"I6"}), core=_core(_KeepsDeadBlocks), when=_restarts),
    Mutant("ignores clears", frozenset({"I7"}), core=_core(_IgnoresClears)),
    Mutant("matches too much", frozenset({"I8"}), core=_core(_MatchesTooMuch)),
    Mutant("never goes stale", frozenset({"I9"}), machine=_never_stale, when=lambda schedule: not schedule.heartbeats),
    Mutant("stays after removal", frozenset({"I10"}), machine=_stays, when=lambda schedule: schedule.departs),
    Mutant(
        "buffers without bound",
        frozenset({"I11"}),
        machine=_unbounded_buffer,
        when=lambda schedule: schedule.small_buffers,
    ),
    Mutant("clears everybody", frozenset({"I12"}), core=_core(_ClearsEverybody)),
)
