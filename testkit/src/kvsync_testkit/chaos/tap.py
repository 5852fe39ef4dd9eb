"""A subscriber of its own on an engine's event stream: the independent witness of what was sent.

It shares no code with the index but the codec of the wire. The replay endpoint gives it the original bytes, with which
it compares what arrived live.
"""

import threading
import time
from typing import NamedTuple

import zmq

from kvsync_events import (
    REPLAY_END,
    BlockStored,
    DecodeError,
    EventBatch,
    FrameError,
    decode_batch,
    digest_key,
    parse_pub_frames,
    parse_replay_reply,
    replay_request,
)
from kvsync_testkit.chaos.netns import call_inside, enter


class Arrival(NamedTuple):
    """A frame that arrived: wall time in seconds, sequence number, payload."""

    at_s: float
    seq: int
    payload: bytes


class Replayed(NamedTuple):
    """An answer to a replay request."""

    items: dict[int, bytes]
    ended: bool
    """The end marker came."""
    first_s: float | None
    """Seconds until the first reply."""
    span_s: float
    """Seconds in all."""


class Tap:
    """Subscribes to `tcp://HOST:PORT` until it is closed."""

    def __init__(self, host: str, events: int, replay: int, namespace: str = "") -> None:
        self.arrivals: list[Arrival] = []
        self._namespace = namespace
        self._replay = f"tcp://{host}:{replay}"
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(f"tcp://{host}:{events}",), daemon=True, name="tap")
        self._thread.start()

    def _run(self, endpoint: str) -> None:
        enter(self._namespace)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()  # its threads live in the namespace of this one
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(endpoint)
        while not self._ending.is_set():
            if socket.poll(100):
                frames = socket.recv_multipart()
                try:
                    frame = parse_pub_frames(frames)
                except FrameError:
                    continue
                self.arrivals.append(Arrival(time.time(), frame.seq, frame.payload))
        context.destroy(linger=0)

    def replay(self, start: int, timeout_s: float = 3.0) -> Replayed:
        """Ask for the batches from `start` on, and wait at most `timeout_s` for each reply."""
        return call_inside(self._namespace, lambda: self._ask(start, timeout_s))

    def _ask(self, start: int, timeout_s: float) -> Replayed:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(self._replay)
        began = time.monotonic()
        socket.send_multipart(replay_request(start))
        items: dict[int, bytes] = {}
        first, ended = None, False
        while not ended and len(items) < 20_000 and socket.poll(int(timeout_s * 1000)):
            reply = parse_replay_reply(socket.recv_multipart())
            first = time.monotonic() - began if first is None else first
            if reply is REPLAY_END:
                ended = True
            else:
                items[reply.seq] = reply.payload
        context.destroy(linger=0)
        return Replayed(items, ended, first, time.monotonic() - began)

    def close(self) -> None:
        """Unsubscribe."""
        self._ending.set()
        self._thread.join(5.0)


def decoded(payload: bytes) -> EventBatch | None:
    """Return the batch, None if the payload cannot be decoded."""
    try:
        return decode_batch(payload)
    except DecodeError:
        return None


def stored_keys(arrivals: list[Arrival]) -> set[int]:
    """Return the 64 bits of every block that the batches announce as stored."""
    keys: set[int] = set()
    for arrival in arrivals:
        batch = decoded(arrival.payload)
        for event in batch.events if batch else []:
            if isinstance(event, BlockStored):
                keys.update(digest_key(one) for one in event.block_hashes)
    return keys
