"""Reads the live stream of a publisher and, if given, its replay endpoint."""

import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import zmq
from zmq.utils.monitor import recv_monitor_message

from kvsync.addresses import check_endpoint, split_tcp
from kvsync.errors import UnreachableError, UsageProblemError
from kvsync.tailing.lines import Connection, Line, Tail
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
_SILENCE = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_DISCONNECTED
"""What happens to the connection while no message arrives."""


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
    check_endpoint(request.endpoint, bind=request.bind)
    if request.replay is not None:
        check_endpoint(request.replay)
    if not request.bind:
        wait_connectable(request.endpoint)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield from _Follower(context, request).lines()
    finally:
        context.destroy(linger=0)


def wait_connectable(endpoint: str, deadline_s: float = CONNECT_DEADLINE_S) -> None:
    """Wait until an endpoint accepts connections, because ZMQ would wait silently and without a limit.

    Raises:
        UnreachableError: the deadline passed.
    """
    end = time.monotonic() + deadline_s
    while True:
        try:
            _connect_once(endpoint, deadline_s)
        except OSError as error:
            if time.monotonic() > end:
                raise UnreachableError(f"{endpoint}: {(error.strerror or str(error)).lower()}") from None
            time.sleep(0.1)
        else:
            return


def _connect_once(endpoint: str, timeout_s: float) -> None:
    if endpoint.startswith("ipc://"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout_s)
            path = endpoint.removeprefix("ipc://")
            probe.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    else:
        socket.create_connection(split_tcp(endpoint), timeout=timeout_s).close()


@dataclass(slots=True)
class _Follower:
    context: "zmq.Context[zmq.Socket[bytes]]"
    request: TailRequest
    tail: Tail = field(default_factory=Tail)
    monitor: "zmq.Socket[bytes]" = field(init=False)
    """Says when the subscription connects and disconnects."""
    _replayed_to: int | None = None
    """The last number of the first replay, until a live batch beyond it arrives."""

    def lines(self) -> Iterator[Line]:
        """Yield the lines of the replay and of the live stream, until the stream is idle."""
        with self.context.socket(zmq.SUB) as subscriber:
            self.monitor = subscriber.get_monitor_socket(_SILENCE)
            try:
                self._subscribe(subscriber)
                if self.request.start_seq is not None:
                    yield from self._replay(self.request.start_seq, None)
                yield from self._live(subscriber)
            finally:
                subscriber.disable_monitor()
                self.monitor.close()

    def _live(self, subscriber: "zmq.Socket[bytes]") -> Iterator[Line]:
        idle_s = self.request.idle_s
        poller = zmq.Poller()
        poller.register(subscriber, zmq.POLLIN)
        poller.register(self.monitor, zmq.POLLIN)
        connection = Connection(self.request.endpoint)
        heard = time.monotonic()
        while True:
            left_ms = None if idle_s is None else int(max(heard + idle_s - time.monotonic(), 0.0) * 1000)
            ready = dict(poller.poll(left_ms))
            if self.monitor in ready:
                yield from connection.lines(recv_monitor_message(self.monitor)["event"])
            if subscriber in ready:
                heard = time.monotonic()
                try:
                    frame = parse_pub_frames(subscriber.recv_multipart())
                except FrameError as error:
                    yield self.tail.bad_frames(error)
                    continue
                yield from self._batch(frame.seq, frame.payload)
            elif idle_s is not None and time.monotonic() >= heard + idle_s:
                return

    def _subscribe(self, subscriber: "zmq.Socket[bytes]") -> None:
        subscriber.set_hwm(RECEIVE_HWM)
        subscriber.setsockopt_string(zmq.SUBSCRIBE, self.request.topic)
        try:
            if self.request.bind:
                subscriber.bind(self.request.endpoint)
            else:
                subscriber.connect(self.request.endpoint)
        except zmq.ZMQError as error:
            verb = "bind" if self.request.bind else "connect to"
            raise UsageProblemError(f"cannot {verb} {self.request.endpoint}: {_zmq_reason(error)}") from None

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
            try:
                dealer.connect(self.request.replay)
            except zmq.ZMQError as error:
                reason = _zmq_reason(error)
                raise UsageProblemError(f"cannot connect to {self.request.replay}: {reason}") from None
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


def _zmq_reason(error: zmq.ZMQError) -> str:
    if error.errno == errno.ENODEV:
        return "this machine has no such address"
    return (error.strerror or str(error)).partition(" (addr=")[0].rstrip(".").lower()
