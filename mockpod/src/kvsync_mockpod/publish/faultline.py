"""Batches on their way through a fault plan: numbered, damaged, held back, sent or lost.

Decisions are the plan's (`FaultPlane`), order and time the outbox's; here they meet the publisher. Replay has
the original bytes unless the fault says otherwise, so that what a fault breaks on the live stream heals.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvsync_events import AllBlocksCleared, Event
from kvsync_mockpod.faults import spec
from kvsync_mockpod.faults.outbox import Outbox, Outgoing
from kvsync_mockpod.faults.payload import damage, with_wrong_parents
from kvsync_mockpod.faults.plane import FaultPlane

if TYPE_CHECKING:
    from kvsync_mockpod.publish.publisher import EventPublisher, PublisherHooks

Fired = list[tuple[spec.Fault, random.Random]]


class FaultLine:
    """One rank's line. Not thread-safe: lives on the event loop."""

    def __init__(self, publisher: "EventPublisher", faults: FaultPlane, hooks: "PublisherHooks") -> None:
        self._publisher = publisher
        self._faults = faults
        self._hooks = hooks
        self._outbox = Outbox()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._swallow_clear = False

    @property
    def busy(self) -> bool:
        """Whether batches are held back or a restart is not over."""
        return bool(len(self._outbox)) or self._swallow_clear

    @property
    def pending(self) -> int:
        """Messages numbered and not sent."""
        return len(self._outbox)

    def plan_changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """A new plan is in force: send what the old one held back, do what the new one does at once."""
        self._loop = loop
        self.flush()
        if self._publisher.enabled:
            for fault in self._faults.at_once(self._publisher.rank):
                self._publisher_fault(fault)

    def flush(self) -> None:
        """Send everything that is held back, now."""
        for message in self._outbox.take_all():
            self._send(message)

    # --- one batch

    def publish(self, events: Sequence[Event]) -> None:
        """Take one batch through the plan."""
        events = self._without_swallowed_clear(events)
        if not events:
            return
        fired = self._faults.on_batch(self._publisher.rank, self._publisher.last_seq + 1)
        for fault, _ in fired:
            if self._publisher_fault(fault):
                return
            if isinstance(fault, spec.DropUnnumbered):
                self._record(fault, None, events=len(events))
                return
        seq = self._publisher.next_seq()
        live, replayed = self._payloads(seq, events, fired)
        keep = True
        for fault, _ in fired:
            if isinstance(fault, spec.Drop):
                self._record(fault, seq, in_replay=fault.in_replay)
                live, keep = None, fault.in_replay
        if replayed is not None and keep:
            self._publisher.remember(seq, replayed)
        if live is not None:
            self._dispatch(Outgoing(seq, live), fired)
        self._pump()

    def _without_swallowed_clear(self, events: Sequence[Event]) -> Sequence[Event]:
        """A restarted process does not say that its predecessor's blocks are gone."""
        if not self._swallow_clear:
            return events
        for index, event in enumerate(events):
            if isinstance(event, AllBlocksCleared):
                self._swallow_clear = False
                return [*events[:index], *events[index + 1 :]]
        return events

    def _payloads(self, seq: int, events: Sequence[Event], fired: Fired) -> tuple[bytes | None, bytes | None]:
        """Bytes for the live stream and for the buffer."""
        original = self._publisher.encode(seq, events)
        live = replayed = original
        for fault, chance in fired:
            if isinstance(fault, spec.WrongParent):
                live = self._publisher.encode(seq, with_wrong_parents(events, chance))
            elif isinstance(fault, spec.Corrupt | spec.Truncate | spec.Oversize) and live is not None:
                live = damage(live, fault, chance)
            else:
                continue
            replayed = live if fault.in_replay else replayed
            self._record(fault, seq, in_replay=fault.in_replay, payload_bytes=0 if live is None else len(live))
        return live, replayed

    def _dispatch(self, message: Outgoing, fired: Fired) -> None:
        now, copies, delay, held = self._hooks.clock_s(), 1, 0.0, None
        for fault, chance in fired:
            if isinstance(fault, spec.Duplicate):
                copies += fault.times
                self._record(fault, message.seq, times=fault.times)
            elif isinstance(fault, spec.Delay):
                delay += fault.ms / 1000
                self._record(fault, message.seq, ms=fault.ms)
            elif isinstance(fault, spec.Reorder):
                held = (chance.randint(1, fault.window), now + fault.hold_ms / 1000)
                self._record(fault, message.seq, after=held[0])
        for _ in range(copies):
            if held is None:
                self._outbox.push(message, now, delay)
            else:
                self._outbox.hold(message, *held)

    # --- the publisher itself

    def _publisher_fault(self, fault: spec.Fault) -> bool:
        """Stall, rebind or restart; True when the batch at hand died with the process."""
        if isinstance(fault, spec.Stall):
            self._record(fault, self._publisher.last_seq + 1, ms=fault.ms)
            self._outbox.stall(self._hooks.clock_s() + fault.ms / 1000)
        elif isinstance(fault, spec.Rebind):
            self._record(fault, self._publisher.last_seq + 1, ms=fault.ms)
            self._publisher.disconnect(fault.ms / 1000)
        elif isinstance(fault, spec.Restart):
            self._record(fault, self._publisher.last_seq + 1, blocks=fault.blocks)
            self._outbox = Outbox()
            self._publisher.forget()
            self._publisher.disconnect(0.0)
            if fault.blocks == "lost":
                self._swallow_clear = True
                self._hooks.lose_blocks()
                return True
        return False

    # --- time

    def _pump(self) -> None:
        """Send what is due and set the timer for the rest."""
        for message in self._outbox.take(self._hooks.clock_s()):
            self._send(message)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._outbox.next_due_s()
        if due is not None and self._loop is not None:
            self._timer = self._loop.call_later(max(due - self._hooks.clock_s(), 0.001), self._pump)

    def _send(self, message: Outgoing) -> None:
        if not self._publisher.send(message.seq, message.payload):
            self._faults.record(self._publisher.rank, "lost_while_closed", self._hooks.log_position(), message.seq)

    def _record(self, fault: spec.Fault, seq: int | None, **detail: object) -> None:
        self._faults.record(self._publisher.rank, fault.kind, self._hooks.log_position(), seq, **detail)
