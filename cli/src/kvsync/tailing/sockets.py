"""Reads the live stream of a publisher and, if given, its replay endpoint."""

import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import zmq

from kvsync.errors import UnreachableError, UsageProblemError
from kvsync.tailing.lines import Line, Tail
from kvsync_events import (
    REPLAY_END,
    FrameError,
    ReplayItem,
    parse_pub_frames,
    parse_replay_reply,
    replay_request,
)

CONNECT_DEADLINE_S = 5.0
REPLAY_SILENCE_MS = 5000
RECEIVE_HWM = 100_000
_TRANSPORTS = ("tcp://", "ipc://")


@dataclass(frozen=True, slots=True)
class TailRequest:
    """The options of `kvsync tail`."""

    endpoint: str
    replay: str | None = None
    topic: str = ""
    bind: bool = False
    start_seq: int | None = None
    """The first number to replay before the live stream; None replays only what is missed later."""
    idle_s: float | None = None
    """Stop when no message arrived for this long."""


def follow(request: TailRequest) -> Iterator[Line]:
    """Yield lines as batches arrive, until the caller stops or the stream is idle.

    Raises:
        UsageProblemError: ZMQ cannot use an endpoint.
        UnreachableError: the publisher does not accept connections.
    """
    for endpoint in filter(None, (request.endpoint, request.replay)):
        check_endpoint(endpoint)
    if not request.bind:
        wait_connectable(request.endpoint)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield from _Follower(context, request).lines()
    finally:
        context.destroy(linger=0)


def check_endpoint(endpoint: str) -> None:
    """Raise UsageProblemError unless ZMQ can use the endpoint."""
    if not endpoint.startswith(_TRANSPORTS) or (endpoint.startswith("tcp://") and ":" not in endpoint[6:]):
        raise UsageProblemError(f"endpoint {endpoint!r} must be tcp://HOST:PORT or ipc://PATH")


def wait_connectable(endpoint: str, deadline_s: float = CONNECT_DEADLINE_S) -> None:
    """Wait until a TCP endpoint accepts connections, because ZMQ would wait silently and without a limit.

    Raises:
        UsageProblemError: the endpoint does not end in a port.
        UnreachableError: the deadline passed.
    """
    if not endpoint.startswith("tcp://"):
        return
    host, _, port = endpoint[6:].rpartition(":")
    end = time.monotonic() + deadline_s
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=deadline_s).close()
        except ValueError:
            raise UsageProblemError(f"endpoint {endpoint!r}: {port!r} is not a port") from None
        except OSError as error:
            if time.monotonic() > end:
                raise UnreachableError(f"{endpoint}: {error.strerror or error}") from None
            time.sleep(0.1)
        else:
            return


@dataclass(slots=True)
class _Follower:
    context: "zmq.Context[zmq.Socket[bytes]]"
    request: TailRequest
    tail: Tail = field(default_factory=Tail)
    _replayed_to: int | None = None
    """The last number of the first replay, until a live batch beyond it arrives."""

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the replay and of the live stream, until the stream is idle."""
        with self.context.socket(zmq.SUB) as subscriber:
            self._subscribe(subscriber)
            if self.request.start_seq is not None:
                yield from self._replay(self.request.start_seq, None)
            idle_ms = None if self.request.idle_s is None else int(self.request.idle_s * 1000)
            while subscriber.poll(idle_ms):
                try:
                    frame = parse_pub_frames(subscriber.recv_multipart())
                except FrameError as error:
                    yield self.tail.bad_frames(error)
                    continue
                yield from self._batch(frame.seq, frame.payload)

    def _subscribe(self, subscriber: "zmq.Socket[bytes]") -> None:
        subscriber.set_hwm(RECEIVE_HWM)
        subscriber.setsockopt_string(zmq.SUBSCRIBE, self.request.topic)
        try:
            if self.request.bind:
                subscriber.bind(self.request.endpoint)
            else:
                subscriber.connect(self.request.endpoint)
        except zmq.ZMQError as error:
            raise UsageProblemError(f"endpoint {self.request.endpoint!r}: {error.strerror}") from None

    def _batch(self, seq: int, payload: bytes) -> Iterator[Line]:
        expected = self.tail.next_seq
        if self.request.start_seq is not None and expected is not None and seq < expected and self._seen(seq):
            return
        for line in self.tail.live(seq, payload):
            yield line
            if line.kind == "gap" and self.request.replay is not None and expected is not None:
                yield from self._replay(expected, seq)
        self._replayed_to = None

    def _seen(self, seq: int) -> bool:
        """Whether the first replay already had this live batch, because the subscription is older than its end."""
        return self._replayed_to is not None and seq <= self._replayed_to

    def _replay(self, first: int, before: int | None) -> Iterator[Line]:
        """Yield the lines of the batches `first..before-1`, and a remark on those that the endpoint no longer has."""
        if self.request.replay is None:
            return
        dealer = self.context.socket(zmq.DEALER)
        dealer.set_hwm(0)
        count = 0
        last = first - 1
        with dealer:
            dealer.connect(self.request.replay)
            dealer.send_multipart(replay_request(first))
            while True:
                if not dealer.poll(REPLAY_SILENCE_MS):
                    yield Line("error", f"-- no answer from {self.request.replay}", {"replay": self.request.replay})
                    break
                try:
                    reply = parse_replay_reply(dealer.recv_multipart())
                except FrameError as error:
                    yield self.tail.bad_frames(error)
                    continue
                if reply is REPLAY_END:
                    break
                if isinstance(reply, ReplayItem) and (before is None or reply.seq < before):
                    yield from self._skipped(last + 1, reply.seq)
                    count += 1
                    last = reply.seq
                    yield from self.tail.replayed(reply.seq, reply.payload)
        if before is not None:
            yield from self._skipped(last + 1, before)
            self.tail.next_seq = before + 1
        elif count:
            self._replayed_to = last

    def _skipped(self, first: int, found: int) -> Iterator[Line]:
        if found > first:
            text = f"-- replay no longer has seq {first}..{found - 1}"
            yield Line("gap", text, {"first": first, "last": found - 1, "lost": True})
