"""Batching by time: what happens within a window goes out as one batch."""

from collections.abc import Callable

from kvsync_events import Event, EventBatch, WireForm, encode_batch, pub_frames
from kvsync_testkit.clock import Timer, VirtualClock
from kvsync_testkit.events.bus import Bus
from kvsync_testkit.events.hooks import FaultHook
from kvsync_testkit.managers.events import EventsManager


class BatchingPublisher:
    """Takes pending events when their window ends, numbers the batch and hands it to the fault hook and the bus.

    The first event after a batch opens a window of `window_s` seconds of virtual time; with 0, every change is a batch
    of its own.

    Attributes:
        topic: The topic frame of every batch.
        next_seq: The sequence number of the next batch.
        batches: Batches numbered so far.
        delayed: Messages that the fault hook delayed and that are still to come.
    """

    def __init__(
        self,
        events: EventsManager,
        bus: Bus,
        clock: VirtualClock,
        *,
        topic: str,
        window_s: float,
        form: WireForm,
        faults: FaultHook,
    ) -> None:
        self.topic = topic
        self.next_seq = 0
        self.batches = 0
        self.delayed = 0
        self._events = events
        self._bus = bus
        self._clock = clock
        self._window_s = window_s
        self._form = form
        self._faults = faults
        self._timer: Timer | None = None
        events.on_pending = self._open_window

    def flush(self) -> bool:
        """End the window now. False if nothing was pending, so that no batch was made."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        events = self._events.take()
        if events:
            self._publish(events)
        return bool(events)

    def close(self) -> None:
        """Publish nothing more; pending events stay with their manager."""
        if self._timer is not None:
            self._timer.cancel()
        self._events.on_pending = lambda: None

    def _open_window(self) -> None:
        if self._window_s:
            self._timer = self._clock.call_later(self._window_s, self._end_window)
        else:
            self.flush()

    def _end_window(self) -> None:
        self.flush()

    def _publish(self, events: list[Event]) -> None:
        if self._faults.restarts_before(self.batches):
            self.next_seq = 0
        payload = encode_batch(EventBatch(self._clock.now, events, 0), self._form)
        frames = pub_frames(self.topic, self.next_seq, payload)
        number, self.batches, self.next_seq = self.batches, self.batches + 1, self.next_seq + 1
        for delivery in self._faults.on_batch(number, frames):
            if delivery.delay_s:
                self.delayed += 1
                self._clock.call_later(delivery.delay_s, self._later(delivery.frames))
            else:
                self._bus.publish(delivery.frames)

    def _later(self, frames: tuple[bytes, ...]) -> Callable[[], None]:
        def send() -> None:
            self.delayed -= 1
            self._bus.publish(frames)

        return send
