"""Applies a fault plan to the batches of one rank: they are numbered, damaged, held back, sent or lost.

`ActiveFaults` decides which fault fires and `Outbox` keeps delayed messages in order; this module applies both to the
event stream. Replay serves the original bytes unless the fault says otherwise, so that a subscriber can repair what a
fault breaks on the live stream.
"""

import asyncio
import random
from collections.abc import Sequence

from kvsync_events import AllBlocksCleared, Event
from kvsync_mockpod.faults import spec
from kvsync_mockpod.faults.active import ActiveFaults
from kvsync_mockpod.faults.outbox import Outbox, Outgoing
from kvsync_mockpod.faults.payload import damage, with_wrong_parents
from kvsync_mockpod.publish.hooks import PublisherHooks
from kvsync_mockpod.publish.stream import EventStream

Fired = list[tuple[spec.Fault, random.Random]]


class FaultInjector:
    """Stands between a rank and its event stream. Not thread-safe: it is used on the event loop only."""

    def __init__(self, stream: EventStream, faults: ActiveFaults, hooks: PublisherHooks) -> None:
        self._stream = stream
        self._faults = faults
        self._hooks = hooks
        self._outbox = Outbox()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Whether messages are held back."""
        return bool(len(self._outbox))

    @property
    def pending(self) -> int:
        """Messages that have a number and were not sent yet."""
        return len(self._outbox)

    def plan_changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """React to a new plan: send what the old one held back, and apply the faults that act at once."""
        self._loop = loop
        self.flush()
        if self._stream.enabled:
            for fault in self._faults.at_once(self._stream.rank):
                self._apply_to_stream(fault)

    def flush(self) -> None:
        """Send everything that is held back."""
        for message in self._outbox.take_all():
            self._send(message)

    def publish(self, events: Sequence[Event]) -> None:
        """Apply the plan to one batch."""
        fired = self._faults.on_batch(self._stream.rank, self._stream.next_number)
        for fault, _ in fired:
            if self._apply_to_stream(fault):
                return
            if isinstance(fault, spec.DropUnnumbered):
                self._record(fault, None, events=len(events))
                return
        seq = self._stream.take_number()
        live, replayed = self._payloads(seq, events, fired)
        keep = True
        for fault, _ in fired:
            if isinstance(fault, spec.Drop):
                self._record(fault, seq, in_replay=fault.in_replay)
                live, keep = None, fault.in_replay
        if replayed is not None and keep:
            self._stream.remember(seq, replayed)
        if live is not None:
            self._dispatch(Outgoing(seq, live), fired)
        self._send_due()

    def _payloads(self, seq: int, events: Sequence[Event], fired: Fired) -> tuple[bytes | None, bytes | None]:
        """The payloads for the live stream and for the replay buffer."""
        original = self._stream.encode(seq, events)
        live = replayed = original
        for fault, chance in fired:
            if isinstance(fault, spec.WrongParent):
                live = self._stream.encode(seq, with_wrong_parents(events, chance))
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

    def _apply_to_stream(self, fault: spec.Fault) -> bool:
        """Apply a stall, rebind or restart; returns True if the current batch is lost with the process."""
        if isinstance(fault, spec.Stall):
            self._record(fault, self._stream.next_number, ms=fault.ms)
            self._outbox.stall(self._hooks.clock_s() + fault.ms / 1000)
        elif isinstance(fault, spec.Rebind):
            self._record(fault, self._stream.next_number, ms=fault.ms)
            self._stream.disconnect(fault.ms / 1000)
        elif isinstance(fault, spec.Restart):
            before = self._stream.next_number
            self._record(fault, before, blocks=fault.blocks)
            self._outbox = Outbox()
            self._stream.restart()
            if fault.blocks == "lost":
                self._hooks.lose_blocks()
                if fault.ahead is not None:
                    self._overtake(before + fault.ahead)
                return True
        return False

    def _overtake(self, number: int) -> None:
        """Publish up to `number` while nobody is connected, so that only replay has what was published."""
        while self._stream.next_number < number:
            seq = self._stream.take_number()
            payload = self._stream.encode(seq, [AllBlocksCleared()])
            if payload is not None:
                self._stream.remember(seq, payload)

    def _send_due(self) -> None:
        """Send the messages that are due and set a timer for the next one."""
        for message in self._outbox.take(self._hooks.clock_s()):
            self._send(message)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._outbox.next_due_s()
        if due is not None and self._loop is not None:
            self._timer = self._loop.call_later(max(due - self._hooks.clock_s(), 0.001), self._send_due)

    def _send(self, message: Outgoing) -> None:
        if not self._stream.send(message.seq, message.payload):
            self._faults.record(self._stream.rank, "lost_while_closed", self._hooks.log_position(), message.seq)

    def _record(self, fault: spec.Fault, seq: int | None, **detail: object) -> None:
        self._faults.record(self._stream.rank, fault.kind, self._hooks.log_position(), seq, **detail)
