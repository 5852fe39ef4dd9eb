"""The publisher of one rank: numbers batches, sends them on PUB, keeps the last ones for replay.

As vLLM: a batch that cannot be encoded has used up its number; the PUB socket binds or connects by the
endpoint; nothing is sent while the socket's own queue for a peer is full (libzmq drops, the number shows it).
Unlike vLLM there is no queue and no thread: a step's batch leaves in the step. With a fault plan in force
every batch goes through a `FaultLine`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import zmq

from kvsync_events import EncodeError, Event, EventBatch, WireForm, encode_batch, pub_frames, publisher_binds
from kvsync_mockpod.config import KVEventsConfig
from kvsync_mockpod.errors import StartError
from kvsync_mockpod.faults.plane import FaultPlane
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.publish.endpoints import RankEndpoints
from kvsync_mockpod.publish.faultline import FaultLine
from kvsync_mockpod.publish.replay import ReplayServer

_log = get_logger(__name__)
_CLOSE_LINGER_MS = 500
_REBIND_RETRY_S = 0.02
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"


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


@dataclass(frozen=True, slots=True)
class PublisherHooks:
    """What a publisher needs of its rank: clocks, and what faults do to the engine."""

    clock_s: Callable[[], float]
    wall_s: Callable[[], float]
    log_position: Callable[[], int]
    """Number the engine's next transition log entry will have."""
    lose_blocks: Callable[[], None]
    """Empty the cache as a crash does."""


class EventPublisher:
    """One rank's event stream. Not thread-safe: lives on the event loop."""

    def __init__(
        self,
        config: KVEventsConfig,
        endpoints: RankEndpoints,
        form: WireForm,
        faults: FaultPlane,
        hooks: PublisherHooks,
    ) -> None:
        self.rank = endpoints.rank
        self._config = config
        self._endpoints = endpoints
        self._form = form
        self._faults = faults
        self._wall_s = hooks.wall_s
        self._context: Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._next_seq = 0
        self._batches = self._events = self._encode_errors = self._payload_bytes = 0
        self._closed = False
        self.endpoint = endpoints.publish
        self._replay = ReplayServer(self.rank, form, config, self._buffer, faults, hooks.log_position)
        self.line = FaultLine(self, faults, hooks)

    @property
    def enabled(self) -> bool:
        """Whether this rank publishes at all."""
        return self._endpoints.publish is not None

    @property
    def last_seq(self) -> int:
        """The last number used; -1 before the first batch."""
        return self._next_seq - 1

    @property
    def replay_endpoint(self) -> str | None:
        """Where replay is served."""
        return self._replay.endpoint

    def open(self, context: Context) -> None:
        """Open both sockets. Raises `StartError` naming the endpoint that cannot be had."""
        self._context = context
        if self._endpoints.publish is not None:
            self._open_pub(self._endpoints.publish)
        if self._endpoints.replay is not None:
            self._replay.open(context, self._endpoints.replay)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve replay requests on `loop`, and begin with the faults of the plan."""
        self._loop = loop
        self._replay.start(loop)
        self.line.plan_changed(loop)

    def _open_pub(self, endpoint: str) -> None:
        if self._context is None:
            return
        socket = self._context.socket(zmq.PUB)
        socket.set_hwm(self._config.hwm)
        socket.setsockopt(zmq.LINGER, _CLOSE_LINGER_MS)
        if "::" in endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        try:
            if publisher_binds(self._endpoints.publish or endpoint):
                socket.bind(endpoint)
                if endpoint.endswith(":0"):
                    self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
            else:
                socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise StartError(f"events of rank {self._endpoints.rank}: {endpoint}: {error.strerror}") from None
        self._socket = socket

    # --- a batch

    def publish(self, events: Sequence[Event]) -> None:
        """Send `events` as one batch; nothing when there are none."""
        if not events or not self.enabled:
            return
        if self._faults.events_active or self.line.busy:
            self.line.publish(events)
            return
        seq = self.next_seq()
        payload = self.encode(seq, events)
        if payload is not None:
            self.remember(seq, payload)
            self.send(seq, payload)

    def next_seq(self) -> int:
        """Use up a number."""
        seq = self._next_seq
        self._next_seq += 1
        return seq

    def encode(self, seq: int, events: Sequence[Event]) -> bytes | None:
        """The payload; None (counted, logged) where vLLM could not encode it either."""
        batch = EventBatch(self._wall_s(), list(events), self._endpoints.rank)
        try:
            payload = encode_batch(batch, self._form)
        except EncodeError as error:
            self._encode_errors += 1
            _log.error("event batch lost: it cannot be encoded", rank=self.rank, seq=seq, reason=str(error))
            return None
        self._batches += 1
        self._events += len(events)
        return payload

    def remember(self, seq: int, payload: bytes) -> None:
        """Keep a batch for replay."""
        self._buffer.append((seq, payload))

    def send(self, seq: int, payload: bytes) -> bool:
        """Put a message on the wire; False while the socket is closed."""
        if self._socket is None:
            return False
        self._payload_bytes += len(payload)
        self._socket.send_multipart(pub_frames(self._config.topic, seq, payload), zmq.NOBLOCK)
        return True

    # --- what faults do

    def forget(self) -> None:
        """Begin again: number 0, empty buffer."""
        self._next_seq = 0
        self._buffer.clear()

    def disconnect(self, seconds: float) -> None:
        """Close the PUB socket and open it again after `seconds`."""
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
        if self._loop is not None:
            self._loop.call_later(seconds, self._reopen)

    def _reopen(self) -> None:
        """Open at the same address; the system may need a moment to give it back."""
        if self._closed or self._socket is not None or self.endpoint is None or self._loop is None:
            return
        try:
            self._open_pub(self.endpoint)
        except StartError:
            self._loop.call_later(_REBIND_RETRY_S, self._reopen)

    # --- the end

    def statistics(self) -> PublisherStats:
        """Counters so far."""
        return PublisherStats(
            self._next_seq,
            self._batches,
            self._events,
            self._encode_errors,
            self._payload_bytes,
            self._replay.requests,
            self._replay.refused,
            self._replay.batches,
        )

    def close(self) -> None:
        """Close both sockets; what was sent still leaves within the linger time."""
        self._closed = True
        self.line.flush()
        self._replay.close()
        if self._socket is not None:
            self._socket.close(_CLOSE_LINGER_MS)
            self._socket = None
