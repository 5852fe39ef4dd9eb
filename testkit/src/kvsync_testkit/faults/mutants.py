"""Planted bugs: at least one for every invariant and for every decision of the follower, each of which must be found.

A checker that no mutant can fail is not a check. Every mutant is the real follower, machine or core with one thing
wrong, of the kind that real indexes get wrong. `mutant_cores` and `mutant_followers` hold the wrong parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kvsync_indexer.sync import Action, Follower, PublisherMachine, SyncSettings
from kvsync_indexer.sync.buffer import LiveBuffer
from kvsync_indexer.sync.catch_up import CatchUp
from kvsync_indexer.sync.live import LiveBatches
from kvsync_indexer.sync.position import Continuity, Position
from kvsync_indexer.sync.recovery import Recovery
from kvsync_indexer.sync.session import Session
from kvsync_testkit.faults import mutant_cores as cores
from kvsync_testkit.faults import mutant_followers as followers
from kvsync_testkit.faults.plan import Schedule
from kvsync_testkit.faults.simulation import replace_settings
from kvsync_testkit.faults.subject import Subject, build_machine


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug, and the invariants that must report it."""

    name: str
    invariants: frozenset[str]
    subject: Subject
    when: Callable[[Schedule], bool] = lambda _schedule: True
    """Schedules in which the bug can show at all."""


# -- machines -------------------------------------------------------------------------------------------------------


class _SkipsGapCheck(Position):
    def judge(self, seq: int, payload: bytes) -> Continuity:
        continuity = super().judge(seq, payload)
        return Continuity.NEXT if continuity is Continuity.AHEAD else continuity


class _AppliesDuplicates(Position):
    def judge(self, seq: int, payload: bytes) -> Continuity:
        continuity = super().judge(seq, payload)
        return Continuity.NEXT if continuity is Continuity.DUPLICATE else continuity


class _TrustsNumbers(Position):
    """Does not look at the bytes, so that a successor which overtook the last number passes."""

    def __init__(self, ring: int) -> None:
        super().__init__(ring, lambda _payload: 0)


def _with_position(kind: type[Position]) -> Subject:
    def build(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
        machine = build_machine(name, settings, now)
        machine.stream.position = kind(settings.ring)
        return machine

    return Subject(machine=build)


def _with(**changes: object) -> Subject:
    """Use other settings than those that were configured."""
    return Subject(machine=lambda name, settings, now: build_machine(name, replace_settings(settings, changes), now))


def _core(kind: Callable[[], object]) -> Subject:
    return Subject(core=cores.core_factory(kind))


def _follower(kind: type[Follower]) -> Subject:
    return Subject(follower=kind)


def _miss_nothing(recovery: Recovery, batches: int, now: float) -> None:
    del recovery, batches, now


def _unbounded(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    machine = build_machine(name, settings, now)
    machine.stream.buffer = LiveBuffer(1_000_000_000, 1_000_000_000)
    return machine


class _StaysAfterRemoval(PublisherMachine):
    def removed(self, now: float) -> list[Action]:
        del now
        return []


def _stays(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
    return _StaysAfterRemoval(name, settings, now=now, epoch="0")


def _patched(part: str, **methods: Callable[..., object]) -> Subject:
    """Replace methods of one part of the machine; each function takes that part first."""

    def build(name: str, settings: SyncSettings, now: float) -> PublisherMachine:
        machine = build_machine(name, settings, now)
        owner = getattr(machine, part)
        for method, function in methods.items():
            setattr(owner, method, partial(function, owner))
        return machine

    return Subject(machine=build)


def _step_over_gap(recovery: Recovery, seq: int, payload: bytes, now: float) -> None:
    del now
    recovery._stream.apply(seq, payload)


def _keep_blocks(recovery: Recovery, reason: str) -> None:
    del recovery, reason


def _apply_at_once(live: LiveBatches, seq: int, payload: bytes, now: float) -> None:
    del now
    live._stream.apply(seq, payload)


def _skip_silently(recovery: Recovery, seq: int, reason: str, now: float) -> None:
    del reason, now
    recovery._stream.position.skip_to(seq)


def _take_for_complete(catch_up: CatchUp, session: Session, seq: int, payload: bytes) -> None:
    catch_up._standing.incomplete = False
    session.fresh += 1
    catch_up._stream.apply(seq, payload)


# -- which schedules can show a bug ---------------------------------------------------------------------------------


def _offloads(schedule: Schedule) -> bool:
    return schedule.workload.host_tier


def _reads_runs(schedule: Schedule) -> bool:
    return schedule.busy_s > 0


def _restarts(schedule: Schedule) -> bool:
    return any(fault.kind == "restart" for fault in schedule.faults)


def _overtakes(schedule: Schedule) -> bool:
    return any(fault.burst for fault in schedule.faults)


def _loses_tail(schedule: Schedule) -> bool:
    return schedule.loses_tail and not schedule.nudges


def _mute(schedule: Schedule) -> bool:
    return any(fault.kind == "mute" for fault in schedule.faults)


def _joins_late(schedule: Schedule) -> bool:
    return schedule.join_after > schedule.buffer_steps


def _unknown_events(schedule: Schedule) -> bool:
    return schedule.workload.unknown_events > 0


def _mixes_ranks(schedule: Schedule) -> bool:
    return schedule.workload.second_rank > 0


def _ends_processes(schedule: Schedule) -> bool:
    return schedule.workload.lethal_batches > 0


def _reads_late(schedule: Schedule) -> bool:
    """Without a replay only the number of the link tells late batches of a process from those of its successor."""
    fenced = any(fault.how == "epoch_first" and fault.kind == "restart" for fault in schedule.faults)
    return schedule.busy_s > 0 and schedule.late_reads and fenced and not schedule.replay


def _damaged_runs(schedule: Schedule) -> bool:
    damaged = schedule.workload.poisoned_batches > 0 or any(fault.kind == "corrupt" for fault in schedule.faults)
    return schedule.busy_s > 0 and damaged


CRASHING = cores.core_factory(cores.Crashes)
"""Cores that fail now and then, which the real follower survives."""

MUTANTS = (
    # the machine
    Mutant("skips the gap check", frozenset({"I1", "I2"}), _with_position(_SkipsGapCheck)),
    Mutant("applies duplicates", frozenset({"I5"}), _with_position(_AppliesDuplicates)),
    Mutant("trusts numbers", frozenset({"I1"}), _with_position(_TrustsNumbers), when=_overtakes),
    Mutant("never goes stale", frozenset({"I9"}), _with(stale_after_s=1e9), when=lambda one: not one.heartbeats),
    Mutant("never verifies", frozenset({"I1"}), _with(verify_after_s=1e9, verify_idle_s=1e9), when=_loses_tail),
    Mutant("stays after removal", frozenset({"I10"}), Subject(machine=_stays), when=lambda one: one.departs),
    Mutant(
        "buffers without bound", frozenset({"I11"}), Subject(machine=_unbounded), when=lambda one: one.small_buffers
    ),
    Mutant("steps over gaps", frozenset({"I2"}), _patched("recovery", open_gap=_step_over_gap)),
    Mutant("keeps blocks that must go", frozenset({"I2"}), _patched("recovery", clear=_keep_blocks)),
    Mutant("applies live batches during a replay", frozenset({"I2"}), _patched("live", _wait=_apply_at_once)),
    Mutant("skips lost batches silently", frozenset({"I2"}), _patched("recovery", give_up_until=_skip_silently)),
    Mutant("takes a cut history for complete", frozenset({"I1"}), _patched("catch_up", _take=_take_for_complete)),
    Mutant(
        "takes lost batches for heard", frozenset({"I9"}), _patched("recovery", missed_live=_miss_nothing), when=_mute
    ),
    # the core
    Mutant("keeps blocks whose removal was lost", frozenset({"I2"}), _core(cores.KeepsDeadBlocks)),
    Mutant("keeps a dead epoch", frozenset({"I6"}), _core(cores.KeepsDeadBlocks), when=_restarts),
    Mutant("forgets copies", frozenset({"I3"}), _core(cores.ForgetsCopies)),
    Mutant("shares one map", frozenset({"I4"}), _core(cores.SharesOneMap)),
    Mutant("ignores clears", frozenset({"I7"}), _core(cores.IgnoresClears)),
    Mutant("matches too much", frozenset({"I8"}), _core(cores.MatchesTooMuch)),
    Mutant("clears everybody", frozenset({"I12"}), _core(cores.ClearsEverybody)),
    # the follower
    Mutant("blames the first batch of a run", frozenset({"I5"}), _follower(followers.BlamesTheFirst), _damaged_runs),
    Mutant("ignores refusals", frozenset({"I2"}), _follower(followers.IgnoresRefusals), when=_damaged_runs),
    Mutant("keeps half a run", frozenset({"I2"}), _follower(followers.KeepsHalfARun).on(CRASHING), when=_reads_runs),
    Mutant("counts refused runs", frozenset({"C1"}), _follower(followers.CountsRefusedRuns), when=_damaged_runs),
    Mutant("trusts soon", frozenset({"I2"}), _follower(followers.TrustsSoon)),
    Mutant("withdraws trust late", frozenset({"I2"}), _follower(followers.WithdrawsTrustLate)),
    Mutant("never withdraws trust", frozenset({"I2"}), _follower(followers.NeverWithdrawsTrust)),
    Mutant("cuts no runs", frozenset({"I5"}), _follower(followers.CutsNoRuns), when=_reads_runs),
    Mutant("believes any link", frozenset({"I6"}), _follower(followers.BelievesAnyLink), when=_reads_late),
    Mutant("completes too soon", frozenset({"I1"}), _follower(followers.CompletesTooSoon)),
    Mutant("remembers turnover", frozenset({"I1"}), _follower(followers.RemembersTurnover)),
    Mutant("merges ranks", frozenset({"I4"}), _follower(followers.MergesRanks), when=_mixes_ranks),
    Mutant("forgets deaths", frozenset({"I12"}), _follower(followers.ForgetsDeaths), when=_ends_processes),
    Mutant("ignores orphans", frozenset({"I1"}), _follower(followers.IgnoresOrphans), when=_joins_late),
    Mutant(
        "counts unknown evictions", frozenset({"I1"}), _follower(followers.CountsUnknownEvictions), when=_joins_late
    ),
    Mutant("keeps an assumption", frozenset({"I1"}), _follower(followers.KeepsAnAssumption), when=_joins_late),
    Mutant(
        "ignores unknown events", frozenset({"I2"}), _follower(followers.IgnoresUnknownEvents), when=_unknown_events
    ),
    Mutant("believes any block size", frozenset({"C1"}), _follower(followers.BelievesAnyBlockSize), when=_offloads),
)
