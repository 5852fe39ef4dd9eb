"""One publisher as the index follows it: its state machine together with the index core, without sockets or clocks.

The follower owns every decision between a socket and the core: which batches go to the core in one call, which of them
the core refused, when trust is given and withdrawn, what is counted. A driver owns the sockets: it calls the methods of
`Follower` with what arrives and what time it is, and carries out what the follower requests through
`PublisherSockets`. The ingest thread is one driver; the fault simulation of the test kit is another.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import structlog

from kvsync_events import DecodeError, Removals, decode_batch
from kvsync_indexer.core import Applied, CoreError, IndexCore
from kvsync_indexer.latency import StreamMeter, batch_times
from kvsync_indexer.sync.actions import (
    Action,
    Apply,
    CancelReplay,
    Clear,
    Connect,
    Disconnect,
    Log,
    Remove,
    RequestReplay,
)
from kvsync_indexer.sync.guard import ApplyGuard, NoGuard
from kvsync_indexer.sync.machine import PublisherMachine
from kvsync_indexer.sync.ranks import Ranks
from kvsync_indexer.sync.removals import RemovalRule
from kvsync_indexer.sync.slices import BUDGET, slices
from kvsync_indexer.sync.states import TRUSTED, State
from kvsync_indexer.sync.totals import Totals
from kvsync_indexer.sync.turnover import Turnover

_log = structlog.get_logger("kvsync_indexer.ingest")


class PublisherSockets(Protocol):
    """The sockets of one publisher, as its follower uses them. No method calls the follower back."""

    def connect(self, link: int) -> None:
        """Close every open socket and open a new event socket; what arrives on it is handed in with `link`."""

    def disconnect(self) -> None:
        """Close every open socket."""

    def request_replay(self, attempt: int, start: int) -> None:
        """Request the batches from `start` on a fresh replay socket; its answers are handed in with `attempt`."""

    def cancel_replay(self) -> None:
        """Close the replay socket."""


class Refusal(NamedTuple):
    """A batch that was not applied, nor was any behind it."""

    seq: int
    reason: str
    for_good: bool = False
    """Asking for the batch again would bring the same."""


def write_log(line: Log) -> None:
    """Write a log line with structlog."""
    getattr(_log, line.level)(line.event, **line.fields)


class Follower:
    """Follows one publisher. `now` is monotonic seconds; every method runs in the driver's one thread."""

    def __init__(
        self,
        machine: PublisherMachine,
        core: IndexCore,
        sockets: PublisherSockets,
        meter: StreamMeter,
        *,
        matched: frozenset[State] = TRUSTED,
        guard: ApplyGuard | None = None,
        between: Callable[[], None] = lambda: None,
        trust_changed: Callable[[], None] = lambda: None,
        log: Callable[[Log], None] = write_log,
    ) -> None:
        """Follow the publisher of `machine`, which the core must know.

        Args:
            machine: Decides.
            core: Holds the blocks.
            sockets: Carries out what the machine requests of them.
            meter: Counts bytes and delays; it may be shared with other followers of the thread.
            matched: The states in which queries may match this publisher.
            guard: Told what is being applied; it knows which payloads an earlier process did not survive.
            between: Called between two calls of the core for one run, so that others get their turn.
            trust_changed: Called after `trusted` or the incarnation has changed.
            log: Writes log lines; `write_log` hands them to structlog.
        """
        self.name = machine.name
        self.machine = machine
        self.totals = Totals()
        self.trusted = False
        """Queries may match the publisher. Trust is withdrawn before blocks change and given afterwards."""
        self.turnover = Turnover()
        self.removals = RemovalRule()
        self._last_copy_only = False
        self._unknown_events = 0
        """Events of unknown types in what was applied since the machine was told of such events."""
        self._core = core
        self._sockets = sockets
        self._meter = meter
        self._matched = matched
        self._guard = guard or NoGuard()
        self._between = between
        self._ranks = Ranks()
        self._incarnation = machine.standing.incarnation
        self._told_incarnation = machine.standing.incarnation
        self._trust_changed = trust_changed
        self._write_log = log

    # -- inputs -------------------------------------------------------------------------------------------------

    def start(self, now: float) -> None:
        """Request the first connection."""
        self._perform(self.machine.start(now), now)

    def connected(self, link: int, now: float) -> None:
        """The handshake with the publisher is done."""
        self._perform(self.machine.connected(link, now), now)

    def disconnected(self, link: int, now: float) -> None:
        """The connection ended."""
        self._perform(self.machine.disconnected(link, now), now)

    def alive(self, at: float, now: float) -> None:
        """The peer is known to have been there at time `at`."""
        self._perform(self.machine.alive(at, now), now)

    def receive(self, link: int, messages: Iterable[tuple[int, bytes]], now: float) -> None:
        """Take the live batches, (sequence number, payload), of one read of the event socket.

        Batches that follow on go to the core in one call; a batch that does not is looked at on its own. What comes
        after a batch over which the machine gave up the link is dropped with it.
        """
        machine = self.machine
        first, run, follows = 0, list[bytes](), machine.run_from
        for seq, payload in messages:
            if seq == follows:
                if not run:
                    first = seq
                run.append(payload)
                follows += 1
                continue
            if run:
                self._take(link, first, run, now)
            self._take(link, seq, [payload], now)
            if machine.link != link:
                return
            run, follows = [], machine.run_from
        if run:
            self._take(link, first, run, now)

    def bad_frame(self, link: int, reason: str, now: float) -> None:
        """A message without the frames of the wire arrived on the event socket."""
        self._perform(self.machine.bad_frame(link, reason, now), now)

    def replay_item(self, attempt: int, seq: int, payload: bytes, now: float) -> None:
        """A replayed batch arrived."""
        self._meter.bytes_in += len(payload)
        self._perform(self.machine.replay_item(attempt, seq, payload, now), now)

    def replay_end(self, attempt: int, now: float) -> None:
        """The end marker of a replay arrived."""
        self._perform(self.machine.replay_end(attempt, now), now)

    def replay_failed(self, attempt: int, reason: str, now: float) -> None:
        """The replay socket failed, or an answer could not be parsed."""
        self._perform(self.machine.replay_failed(attempt, reason, now), now)

    def epoch_changed(self, epoch: str, now: float) -> None:
        """Discovery says which process this is."""
        self._perform(self.machine.epoch_changed(epoch, now), now)

    def removed(self, now: float) -> None:
        """The publisher left."""
        self._perform(self.machine.removed(now), now)

    def engine_is(self, version: str | None, removals: Removals | None, now: float) -> None:
        """Adopt what the engine says of its version and the specification of its removals; None if it is not known."""
        self.removals.know(removals, version)
        self._adopt_removals(now)

    def false_hits(self, evidence: str, now: float) -> None:
        """The index has claimed blocks that the engine does not hold, although it has applied every batch."""
        if self.removals.notice(evidence):
            self._adopt_removals(now)

    def resync(self, reason: str, now: float) -> bool:
        """Drop the blocks and apply the publisher's history again; False if its state does not permit it now."""
        if self.machine.unable_to_resync:
            return False
        self._perform(self.machine.blocks_outdated(reason, now), now)
        return True

    def _adopt_removals(self, now: float) -> None:
        last_copy_only = self.removals.removals == "last_copy"
        if last_copy_only is self._last_copy_only or self.name not in self._core.publishers():
            return
        self._last_copy_only = last_copy_only
        self._core.set_last_copy_only(self.name, last_copy_only)
        self._write_log(Log("info", "removals_adopted", {"publisher": self.name, "removals": self.removals.removals}))
        if last_copy_only and self.totals.batches:
            self._perform(self.machine.blocks_outdated(self.removals.note, now), now)

    def tick(self, now: float) -> None:
        """Let time pass. Call at least every 100 ms."""
        machine = self.machine
        self._perform(machine.tick(now), now)
        if (
            machine.incomplete
            and machine.trusted
            and self.turnover.moved
            and self.turnover.replaced(self._core.sizes(self.name)[0])
        ):
            self.totals.turnovers += 1
            self.turnover.assume()
            machine.complete()

    # -- live batches -------------------------------------------------------------------------------------------

    def _take(self, link: int, first: int, payloads: list[bytes], now: float) -> None:
        """Hand consecutive batches to the machine, and count how late they were."""
        meter = self._meter
        arrived = meter.wall()
        made = batch_times(payloads)
        meter.bytes_in += sum(map(len, payloads))
        self._perform(self.machine.frames(link, first, payloads, now), now)
        if made:
            self.totals.lag_s = arrived - made[-1]
            meter.arrival.observe_since(made, arrived)
            if self.trusted:
                meter.visible.observe_since(made, meter.wall())

    # -- actions ------------------------------------------------------------------------------------------------

    def _perform(self, actions: Sequence[Action], now: float) -> None:
        """Carry out the machine's answer in order, and what it answers if the core refuses a batch."""
        standing, matched = self.machine.standing, self._matched
        while True:
            if self.trusted and standing.state not in matched:
                self._set_trust(trusted=False)
            refused: Refusal | None = None
            for action in actions:
                if isinstance(action, Apply):
                    refused = self._apply(action)
                    if refused is not None:
                        break
                else:
                    self._carry_out(action)
            if refused is not None:
                actions = self.machine.apply_failed(refused.seq, refused.reason, now, for_good=refused.for_good)
            elif self._unknown_events:
                actions = self.machine.blocks_suspect(self._unknown_events, now)
                self._unknown_events = 0
            else:
                break
        if self.trusted is not (standing.state in matched) or self._told_incarnation != standing.incarnation:
            self._set_trust(trusted=standing.state in matched)

    def _set_trust(self, *, trusted: bool) -> None:
        self.trusted = trusted
        self._told_incarnation = self.machine.standing.incarnation
        self._trust_changed()

    def _carry_out(self, action: Action) -> None:
        match action:
            case Connect(link):
                self._sockets.connect(link)
            case Disconnect():
                self._sockets.disconnect()
            case RequestReplay(attempt, start):
                self._sockets.request_replay(attempt, start)
            case CancelReplay():
                self._sockets.cancel_replay()
            case Clear():
                self._clear()
            case Remove():
                self._core.remove_publisher(self.name)
            case Log():
                self._write_log(action)

    def _clear(self) -> None:
        self._core.clear_publisher(self.name)
        self.turnover.forget()

    def _apply(self, action: Apply) -> Refusal | None:
        """Hand payloads to the core, slice by slice, up to the first that is refused."""
        if self._incarnation != self.machine.standing.incarnation:
            self._incarnation = self.machine.standing.incarnation
            self._ranks.forget()
        other = self._ranks.first_other(action.payloads)
        payloads = action.payloads if other is None else action.payloads[: other[0]]
        for first_seq, part in slices(action.first_seq, payloads, self._applies_singly):
            if first_seq != action.first_seq:
                self._between()
            refused = self._apply_slice(Apply(first_seq, part))
            if refused is not None:
                return Refusal(*refused)
        if other is None:
            return None
        place, rank = other
        reason = f"ranks {self._ranks.rank} and {rank} share one stream; give each rank an endpoint of its own"
        return Refusal(action.first_seq + place, reason, for_good=True)

    def _applies_singly(self, seq: int) -> bool:
        return self._guard.applies_singly(self.name, seq)

    def _apply_slice(self, action: Apply) -> tuple[int, str] | None:
        """Hand payloads to the core, in as many calls as their work takes; (sequence number, reason) of a refusal."""
        seq, payloads = action.first_seq, action.payloads
        if len(payloads) == 1 and self._guard.is_set_aside(self.name, seq, payloads[0]):
            self.totals.set_aside += 1
            return seq, "set aside, because an earlier process of the index ended while it applied it"
        while payloads:
            if seq != action.first_seq:
                self._between()
            applied = self._call_core(Apply(seq, payloads))
            if not isinstance(applied, Applied):
                return applied
            done = max(1, applied.payloads)
            self._count(applied, payloads[:done])
            seq, payloads = seq + done, payloads[done:]
        return None

    def _call_core(self, action: Apply) -> Applied | tuple[int, str]:
        """Call the core once, which may leave the last payloads for another call."""
        name, payloads = self.name, action.payloads
        self._guard.begin(name, action.first_seq, payloads)
        try:
            if len(payloads) == 1:
                return self._core.apply(name, payloads[0])
            return self._core.apply_many(name, payloads, BUDGET)
        except (DecodeError, CoreError) as error:
            return self._refused(action, str(error), _refused_place(error, payloads))
        except Exception as error:  # noqa: BLE001  one publisher's payload must never end the thread for all
            self._write_log(Log("exception", "apply_crashed", {"publisher": name, "seq": action.first_seq}))
            return self._refused(action, f"{type(error).__name__}: {error}", None)
        finally:
            self._guard.end()

    def _count(self, applied: Applied, payloads: tuple[bytes, ...]) -> None:
        self.totals.add(applied, payloads)
        self._unknown_events += applied.unknown_events
        if self.machine.incomplete or self.turnover.assumed:
            self._watch(applied, payloads)

    def _watch(self, applied: Applied, payloads: tuple[bytes, ...]) -> None:
        """Look for signs of blocks that are not known here, and of their end."""
        _, orphans = self._core.sizes(self.name)
        if self.turnover.contradicts(applied, orphans):
            self.machine.not_complete()
        self.turnover.watch(applied, payloads, orphans)

    def _refused(self, action: Apply, reason: str, place: int | None) -> tuple[int, str]:
        """Say which batch the core refused: the one at `place`. It has applied those before it and none behind it.

        Without a place the core has failed for a reason of its own, and how much of the run it has applied is unknown.
        So its blocks are worth nothing and are dropped.
        """
        if place is None:
            self._clear()
            self.machine.blocks_dropped()
            return action.first_seq, reason
        self.totals.batches += place
        return action.first_seq + place, reason


def _refused_place(error: Exception, payloads: tuple[bytes, ...]) -> int | None:
    """Return the place of the refused batch in its run: the core names it at a limit; otherwise it is looked for."""
    if len(payloads) == 1:
        return 0
    place: int | None = getattr(error, "batch", None)
    return _first_undecodable(payloads) if place is None else place


def _first_undecodable(payloads: tuple[bytes, ...]) -> int | None:
    for place, payload in enumerate(payloads):
        try:
            decode_batch(payload)
        except DecodeError:
            return place
    return None
