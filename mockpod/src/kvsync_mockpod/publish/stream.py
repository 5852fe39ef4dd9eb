"""The numbered event stream of one rank: its PUB socket, its sequence numbers and the batches kept for replay.

It behaves as vLLM's: a batch that cannot be encoded has used up its number, the socket binds or connects depending on
the endpoint, and libzmq drops messages for a peer whose queue is full, which the peer notices by the gap in the
numbers.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

import zmq

from kvsync_events import EncodeError, Event, EventBatch, WireForm, encode_batch, pub_frames, publisher_binds
from kvsync_mockpod.config import KVEventsConfig
from kvsync_mockpod.errors import StartError
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.publish.curve import CurveServer
from kvsync_mockpod.publish.endpoints import RankEndpoints

_log = get_logger(__name__)
_CLOSE_LINGER_MS = 500
_REBIND_RETRY_S = 0.02
Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"


class EventStream:
    """Numbers, encodes, keeps and sends batches. Not thread-safe: it is used on the event loop only."""

    def __init__(
        self,
        config: KVEventsConfig,
        endpoints: RankEndpoints,
        form: WireForm,
        wall_s: Callable[[], float],
        curve: CurveServer | None = None,
    ) -> None:
        self._curve = curve
        self.rank = endpoints.rank
        self.endpoint = endpoints.publish
        """Where the stream is published; a bound port 0 is replaced by the port that the system chose."""
        self.buffer: deque[tuple[int, bytes]] = deque(maxlen=config.buffer_steps)
        """The last batches as (sequence number, payload), for replay."""
        self.next_number = 0
        """The sequence number of the next batch."""
        self.batches = 0
        self.events = 0
        self.encode_errors = 0
        self.payload_bytes = 0
        self._config = config
        self._endpoints = endpoints
        self._form = form
        self._wall_s = wall_s
        self._context: Context | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._closed = False

    @property
    def enabled(self) -> bool:
        """Whether this rank publishes at all."""
        return self._endpoints.publish is not None

    def open(self, context: Context) -> None:
        """Open the PUB socket.

        Raises:
            StartError: the endpoint cannot be bound; the message names it.
        """
        self._context = context
        if self._endpoints.publish is not None:
            self._open_socket(self._endpoints.publish)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Use `loop` for the timers of `disconnect`."""
        self._loop = loop

    def _open_socket(self, endpoint: str) -> None:
        if self._context is None:
            return
        socket = self._context.socket(zmq.PUB)
        socket.set_hwm(self._config.hwm)
        socket.setsockopt(zmq.LINGER, _CLOSE_LINGER_MS)
        if self._curve is not None:
            self._curve.secure(socket)
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
            raise StartError(f"events of rank {self.rank}: {endpoint}: {error.strerror}") from None
        self._socket = socket

    def take_number(self) -> int:
        """Use up a sequence number and return it."""
        seq = self.next_number
        self.next_number += 1
        return seq

    def encode(self, seq: int, events: Sequence[Event]) -> bytes | None:
        """The payload of a batch. An encoding error is counted and logged, and None is returned: the batch is lost."""
        batch = EventBatch(self._wall_s(), list(events), self.rank)
        try:
            payload = encode_batch(batch, self._form)
        except EncodeError as error:
            self.encode_errors += 1
            _log.error("event_batch_not_encoded", rank=self.rank, seq=seq, reason=str(error))
            return None
        self.batches += 1
        self.events += len(events)
        return payload

    def remember(self, seq: int, payload: bytes) -> None:
        """Keep a batch for replay."""
        self.buffer.append((seq, payload))

    def send(self, seq: int, payload: bytes) -> bool:
        """Pass a message to the socket; returns False while the socket is closed."""
        if self._socket is None:
            return False
        self.payload_bytes += len(payload)
        self._socket.send_multipart(pub_frames(self._config.topic, seq, payload), zmq.NOBLOCK)
        return True

    def restart(self) -> None:
        """Begin again with number 0, an empty buffer and a new connection, as a restarted process does."""
        self.next_number = 0
        self.buffer.clear()
        self.disconnect(0.0)

    def disconnect(self, seconds: float) -> None:
        """Close the socket and open it again at the same address after `seconds`."""
        if self._socket is not None:
            self._socket.close(0)
            self._socket = None
        if self._loop is not None:
            self._loop.call_later(seconds, self._reopen)

    def _reopen(self) -> None:
        if self._closed or self._socket is not None or self.endpoint is None or self._loop is None:
            return
        try:
            self._open_socket(self.endpoint)
        except StartError:  # the system may not have released the address yet
            self._loop.call_later(_REBIND_RETRY_S, self._reopen)

    def close(self) -> None:
        """Close the socket for good; messages already sent may still leave within the linger time."""
        self._closed = True
        if self._socket is not None:
            self._socket.close(_CLOSE_LINGER_MS)
            self._socket = None
