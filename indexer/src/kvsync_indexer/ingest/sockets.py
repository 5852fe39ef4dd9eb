"""The ZMQ sockets of one publisher, with the options that make faults visible.

Heartbeats detect within `heartbeat_timeout_s` a peer that vanished without closing, because of a partition or because
its process was stopped; socket monitors report when a connection begins and ends. Both are needed. Without heartbeats
TCP survives a partition by retransmission, which looks like silence; with them the connection is lost, and a replay
fills in what was missed.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from kvsync_events import FrameError, decode_seq, replay_request

_NOBLOCK = zmq.NOBLOCK
_RCVMORE = zmq.RCVMORE
_POLLIN = int(zmq.POLLIN)
_REFUSED = {
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the connection was refused",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the connection was refused: the two sides do not agree on CURVE security",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the connection was refused: the publisher does not admit this index's CURVE key",
}
_WATCHED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED) | sum(_REFUSED)


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """ZMQ options; times in seconds."""

    max_message_bytes: int = 16 << 20
    """libzmq cuts the connection over a larger one; a smaller one that the decoder refuses leads to quarantine."""
    receive_hwm: int = 32
    """Messages queued for one publisher; together with the size of a message they bound the memory of the queue.

    libzmq does not drop what exceeds it: it stops reading, so that the rest waits in the kernel and in the publisher's
    own queue, where a batch that finds no room is lost with its number and shows as a gap.
    """
    replay_hwm: int = 64
    heartbeat_s: float = 1.0
    """0 turns heartbeats off, for peers that cannot answer them."""
    heartbeat_timeout_s: float = 3.0
    reconnect_s: float = 0.05
    reconnect_max_s: float = 1.0
    connect_timeout_s: float = 2.0
    """A connection attempt is given up after this time. Without it the kernel repeats an unanswered attempt at
    intervals that double, and after a long partition the next one comes many seconds after the network has healed."""


@dataclass(frozen=True, slots=True)
class CurveKeys:
    """The key pair by which publishers know this index."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def of(cls, secret: str | None) -> "CurveKeys":
        """The pair of a secret key, or a new one. Raises ValueError if libzmq has no CURVE or refuses the key."""
        try:
            if secret is None:
                made = zmq.curve_keypair()
                return cls(made[0].decode(), made[1].decode())
            return cls(zmq.curve_public(secret.encode()).decode(), secret)
        except zmq.ZMQError as error:
            raise ValueError(f"CURVE: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Curve:
    """The security of one publisher's sockets. The publisher is always CURVE's server, whichever side binds."""

    server_key: str
    keys: CurveKeys

    def secure(self, socket: zmq.Socket[bytes]) -> None:
        """Set the options of a socket before it binds or connects. Raises zmq.ZMQError."""
        socket.curve_serverkey = self.server_key.encode()
        socket.curve_publickey = self.keys.public.encode()
        socket.curve_secretkey = self.keys.secret.encode()


def _tune(socket: zmq.Socket[bytes], settings: SocketSettings, hwm: int) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, hwm)
    socket.setsockopt(zmq.MAXMSGSIZE, settings.max_message_bytes)
    socket.setsockopt(zmq.RECONNECT_IVL, int(settings.reconnect_s * 1000))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(settings.reconnect_max_s * 1000))
    socket.setsockopt(zmq.CONNECT_TIMEOUT, int(settings.connect_timeout_s * 1000))
    socket.setsockopt(zmq.IPV6, 1)
    if settings.heartbeat_s > 0:
        socket.setsockopt(zmq.HEARTBEAT_IVL, max(1, int(settings.heartbeat_s * 1000)))
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, max(1, int(settings.heartbeat_timeout_s * 1000)))


def _waits(socket: zmq.Socket[bytes]) -> bool:
    """Return whether a message can be taken."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)


class Received(NamedTuple):
    """Publications in order of arrival."""

    messages: list[tuple[int, bytes]]
    """Sequence number and payload."""
    more: bool
    """Further messages may be waiting."""
    problem: str | None = None
    """Why the message behind them is not a publication, None if there is no such message."""


class EventSocket:
    """A SUB socket and its monitor."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        topic: str,
        settings: SocketSettings,
        *,
        bind: bool,
        curve: Curve | None = None,
    ) -> None:
        """Open the socket. Raises zmq.ZMQError if the endpoint is taken or cannot be bound here."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
        self.monitor: zmq.Socket[bytes] | None = None
        self.refusal: str | None = None
        """Why the last attempt to connect was refused; None if it was not."""
        try:
            _tune(self.socket, settings, settings.receive_hwm)
            if curve is not None:
                curve.secure(self.socket)
            self.monitor = self.socket.get_monitor_socket(_WATCHED)
            self.socket.setsockopt(zmq.SUBSCRIBE, topic.encode())
            if bind:
                self.socket.bind(endpoint)
            else:
                self.socket.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def fds(self) -> tuple[int, int]:
        """Return the file descriptors that wake for publications and for the monitor."""
        assert self.monitor is not None
        return int(self.socket.getsockopt(zmq.FD)), int(self.monitor.getsockopt(zmq.FD))

    def connection_changes(self) -> list[bool]:
        """Return the connection changes since the last call, in order: True for connected, False for disconnected."""
        changes: list[bool] = []
        assert self.monitor is not None
        while _waits(self.monitor):  # costs a third of an `Again` error
            message: Any = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            if message["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                changes.append(True)
                self.refusal = None
            elif message["event"] == zmq.EVENT_DISCONNECTED:
                changes.append(False)
            else:
                self.refusal = _REFUSED.get(message["event"], self.refusal)
        return changes

    def receive(self, limit: int, most_bytes: int) -> "Received":
        """Return the publications that wait, up to `limit` of them or `most_bytes`.

        They are read frame by frame, and only the last frame is checked for a successor: `recv_multipart` checks every
        frame and takes 2.5 times as long (4.5 instead of 1.8 us). A message of another shape shows as a frame too few
        or too many. An `Again` error costs more than asking first whether a message waits, unless it comes once for
        many messages. So the socket is asked after the first message, which at moderate rates is the only one.
        """
        socket, recv, get, no_wait, more = self.socket, self.socket.recv, self.socket.getsockopt, _NOBLOCK, _RCVMORE
        messages: list[tuple[int, bytes]] = []
        size = 0
        try:
            while len(messages) < limit and size < most_bytes:
                recv(no_wait)
                try:
                    seq_frame = recv(no_wait)
                    payload = recv(no_wait)
                except zmq.Again:
                    return Received(messages, True, "a publication has 3 frames (topic, sequence, payload), not fewer")
                if get(more):
                    while get(more):
                        recv(no_wait)
                    return Received(messages, True, "a publication has 3 frames (topic, sequence, payload), not more")
                messages.append((decode_seq(seq_frame), payload))
                size += len(payload)
                if len(messages) == 1 and not _waits(socket):
                    return Received(messages, False)
        except zmq.Again:
            return Received(messages, False)
        except FrameError as error:  # a sequence frame of another length
            return Received(messages, True, str(error))
        return Received(messages, True)

    def close(self) -> None:
        """Close both sockets and drop what is queued."""
        if self.monitor is not None:
            self.socket.disable_monitor()
            self.monitor.close(0)
            self.monitor = None
        self.socket.close(0)


class ReplaySocket:
    """A DEALER socket on which one request was sent."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        start: int,
        settings: SocketSettings,
        curve: Curve | None = None,
    ) -> None:
        """Send the request. Raises zmq.ZMQError if the endpoint cannot be used."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        try:
            _tune(self.socket, settings, settings.replay_hwm)
            if curve is not None:
                curve.secure(self.socket)
            self.socket.connect(endpoint)
            self.socket.send_multipart(replay_request(start), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.close()
            raise

    def fd(self) -> int:
        """Return the file descriptor that wakes for answers."""
        return int(self.socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Close the socket and drop what is queued."""
        self.socket.close(0)
