"""The publisher of one rank: numbers batches, sends them on PUB, keeps the last ones for replay.

As vLLM: a batch that cannot be encoded has used up its number; the PUB socket binds or connects by the
endpoint; nothing is sent while the socket's own queue for a peer is full (libzmq drops, the number shows it).
Unlike vLLM there is no queue and no thread: a step's batch leaves in the step.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
import zmq

from kvsync_events import EncodeError, Event, EventBatch, WireForm, encode_batch, pub_frames, publisher_binds
from kvsync_mockpod.config import KVEventsConfig
from kvsync_mockpod.errors import StartError
from kvsync_mockpod.publish.endpoints import RankEndpoints
from kvsync_mockpod.publish.replay import ReplayServer

__all__ = ["EventPublisher", "PublisherStats"]

_log = structlog.get_logger(__name__)
_CLOSE_LINGER_MS = 500


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
    """One rank's event stream. Not thread-safe: lives on the event loop."""

    def __init__(
        self,
        config: KVEventsConfig,
        endpoints: RankEndpoints,
        form: WireForm,
        wall_s: Callable[[], float],
    ) -> None:
        self._config = config
        self._endpoints = endpoints
        self._form = form
        self._wall_s = wall_s
        self._socket: zmq.Socket[bytes] | None = None
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        self._next_seq = 0
        self._batches = self._events = self._encode_errors = self._payload_bytes = 0
        self.endpoint = endpoints.publish
        self._replay = ReplayServer(form, config.topic, self._buffer, config.buffer_steps)

    @property
    def last_seq(self) -> int:
        """The last number used; -1 before the first batch."""
        return self._next_seq - 1

    @property
    def replay_endpoint(self) -> str | None:
        """Where replay is served."""
        return self._replay.endpoint

    def open(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        """Open both sockets. Raises `StartError` naming the endpoint that cannot be had."""
        if self._endpoints.publish is not None:
            self._open_pub(context, self._endpoints.publish)
        if self._endpoints.replay is not None:
            self._replay.open(context, self._endpoints.replay)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve replay requests on `loop`."""
        self._replay.start(loop)

    def _open_pub(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        socket = context.socket(zmq.PUB)
        socket.set_hwm(self._config.hwm)
        socket.setsockopt(zmq.LINGER, _CLOSE_LINGER_MS)
        if endpoint.startswith("tcp://[") or "::" in endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        try:
            if publisher_binds(endpoint):
                socket.bind(endpoint)
                self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT) if endpoint.endswith(":0") else endpoint
            else:
                socket.connect(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            msg = f"events of rank {self._endpoints.rank}: {endpoint}: {error.strerror}"
            raise StartError(msg) from None
        self._socket = socket

    def publish(self, events: Sequence[Event]) -> int | None:
        """Send `events` as one batch; returns the number it used, or None when there is nothing to say."""
        if not events or self._socket is None:
            return None
        seq = self._next_seq
        self._next_seq += 1
        batch = EventBatch(self._wall_s(), list(events), self._endpoints.rank)
        try:
            payload = encode_batch(batch, self._form)
        except EncodeError as error:
            self._encode_errors += 1
            _log.error("event batch lost: it cannot be encoded", rank=self._endpoints.rank, seq=seq, reason=str(error))
            return seq
        self._batches += 1
        self._events += len(events)
        self._payload_bytes += len(payload)
        self._buffer.append((seq, payload))
        self._send(seq, payload)
        return seq

    def _send(self, seq: int, payload: bytes) -> None:
        if self._socket is not None:
            self._socket.send_multipart(pub_frames(self._config.topic, seq, payload), zmq.NOBLOCK)

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
        self._replay.close()
        if self._socket is not None:
            self._socket.close(_CLOSE_LINGER_MS)
            self._socket = None
