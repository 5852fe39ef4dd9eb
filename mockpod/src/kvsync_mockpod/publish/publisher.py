"""The publisher of one rank: its event stream, the faults that act on it, and the replay server.

Unlike vLLM's publisher it has no queue and no thread: the batch of a step is sent within the step. While a fault plan
is in force, batches pass through a `FaultInjector`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from kvsync_events import Event, WireForm
from kvsync_mockpod.config import KVEventsConfig
from kvsync_mockpod.faults.active import ActiveFaults
from kvsync_mockpod.publish.curve import CurveServer
from kvsync_mockpod.publish.endpoints import RankEndpoints
from kvsync_mockpod.publish.fault_injector import FaultInjector
from kvsync_mockpod.publish.hooks import PublisherHooks
from kvsync_mockpod.publish.replay import ReplayServer
from kvsync_mockpod.publish.stream import Context, EventStream


@dataclass(frozen=True, slots=True)
class PublisherStats:
    """Counters of one publisher since its start."""

    next_seq: int
    batches: int
    events: int
    encode_errors: int
    payload_bytes: int
    replay_requests: int
    replay_refused: int
    replay_batches: int


class EventPublisher:
    """Publishes one rank's events. Not thread-safe: it is used on the event loop only."""

    def __init__(
        self,
        config: KVEventsConfig,
        endpoints: RankEndpoints,
        form: WireForm,
        faults: ActiveFaults,
        hooks: PublisherHooks,
        curve: CurveServer | None = None,
    ) -> None:
        self.rank = endpoints.rank
        self._endpoints = endpoints
        self._faults = faults
        self._stream = EventStream(config, endpoints, form, hooks.wall_s, curve)
        self._replay = ReplayServer(
            self.rank, form, config, self._stream.buffer, faults, hooks.log_position, curve=curve
        )
        self._injector = FaultInjector(self._stream, faults, hooks)

    @property
    def enabled(self) -> bool:
        """Whether this rank publishes at all."""
        return self._stream.enabled

    @property
    def last_seq(self) -> int:
        """The last sequence number used; -1 before the first batch."""
        return self._stream.next_number - 1

    @property
    def endpoint(self) -> str | None:
        """Where events are published; None if this rank does not publish."""
        return self._stream.endpoint

    @property
    def replay_endpoint(self) -> str | None:
        """Where replay is served; None if it is not."""
        return self._replay.endpoint

    @property
    def pending(self) -> int:
        """Messages that have a number and were not sent yet."""
        return self._injector.pending

    def open(self, context: Context) -> None:
        """Open both sockets.

        Raises:
            StartError: an endpoint cannot be bound; the message names it.
        """
        self._stream.open(context)
        if self._endpoints.replay is not None:
            self._replay.open(context, self._endpoints.replay)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve replay requests on `loop`, and apply the faults of the plan that act at once."""
        self._stream.start(loop)
        self._replay.start(loop)
        self._injector.plan_changed(loop)

    def plan_changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """React to a new fault plan: send what the old one held back, and apply the faults that act at once."""
        self._injector.plan_changed(loop)

    def publish(self, events: Sequence[Event]) -> None:
        """Send `events` as one batch; an empty sequence sends nothing."""
        stream = self._stream
        if not events or not stream.enabled:
            return
        if self._faults.events_active or self._injector.busy:
            self._injector.publish(events)
            return
        seq = stream.take_number()
        payload = stream.encode(seq, events)
        if payload is not None:
            stream.remember(seq, payload)
            stream.send(seq, payload)

    def statistics(self) -> PublisherStats:
        """The counters so far."""
        return PublisherStats(
            self._stream.next_number,
            self._stream.batches,
            self._stream.events,
            self._stream.encode_errors,
            self._stream.payload_bytes,
            self._replay.requests,
            self._replay.refused,
            self._replay.batches,
        )

    def close(self) -> None:
        """Send what faults held back and close both sockets; what was sent may still leave within the linger time."""
        self._injector.flush()
        self._replay.close()
        self._stream.close()
