"""The ZMQ sockets of one publisher, with the options that make faults visible.

Heartbeats find a peer that vanished without closing (a partition, a stopped process) within `heartbeat_timeout_s`;
socket monitors tell when a connection begins and ends. Both are needed: without heartbeats a partition is survived by
TCP retransmission and looks like silence; with them it is a connection lost, and replay fills what was missed.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from kvsync_events import FrameError, decode_seq, replay_request

_NOBLOCK = zmq.NOBLOCK
_RCVMORE = zmq.RCVMORE
_POLLIN = int(zmq.POLLIN)
_WATCHED = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED


@dataclass(frozen=True, slots=True)
class SocketSettings:
    """ZMQ options; times in seconds."""

    receive_hwm: int = 100_000
    """Messages queued for one publisher before libzmq drops (which shows as a gap)."""
    replay_hwm: int = 200_000
    max_message_bytes: int = 256 << 20
    """libzmq cuts the connection over it; payloads over the decoder's limit but under this are quarantined."""
    heartbeat_s: float = 1.0
    """0 turns heartbeats off (for peers that cannot answer them)."""
    heartbeat_timeout_s: float = 3.0
    reconnect_s: float = 0.05
    reconnect_max_s: float = 1.0


def _tune(socket: zmq.Socket[bytes], settings: SocketSettings, hwm: int) -> None:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, hwm)
    socket.setsockopt(zmq.MAXMSGSIZE, settings.max_message_bytes)
    socket.setsockopt(zmq.RECONNECT_IVL, int(settings.reconnect_s * 1000))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(settings.reconnect_max_s * 1000))
    socket.setsockopt(zmq.IPV6, 1)
    if settings.heartbeat_s > 0:
        socket.setsockopt(zmq.HEARTBEAT_IVL, max(1, int(settings.heartbeat_s * 1000)))
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, max(1, int(settings.heartbeat_timeout_s * 1000)))


def _waits(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message can be taken."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & _POLLIN)


class Received(NamedTuple):
    """Publications in order of arrival."""

    messages: list[tuple[int, bytes]]
    """Sequence number and payload."""
    more: bool
    """There may be others waiting."""
    problem: str | None = None
    """What came after them was no publication: why not."""


class EventSocket:
    """SUB plus its monitor."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        endpoint: str,
        topic: str,
        settings: SocketSettings,
        *,
        bind: bool,
    ) -> None:
        """Raises zmq.ZMQError when the endpoint cannot be used (taken, or not ours to bind)."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.SUB)
        self.monitor: zmq.Socket[bytes] | None = None
        try:
            _tune(self.socket, settings, settings.receive_hwm)
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
        """File descriptors that wake for events and for the monitor."""
        assert self.monitor is not None
        return int(self.socket.getsockopt(zmq.FD)), int(self.monitor.getsockopt(zmq.FD))

    def connection_changes(self) -> list[bool]:
        """What the monitor has told since the last call: True connected, False disconnected, in order."""
        changes: list[bool] = []
        assert self.monitor is not None
        while _waits(self.monitor):  # a third of what it costs to be refused a message
            message: Any = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            if message["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                changes.append(True)
            elif message["event"] == zmq.EVENT_DISCONNECTED:
                changes.append(False)
        return changes

    def receive(self, limit: int, most_bytes: int) -> "Received":
        """Publications that wait, until they are `limit` or have `most_bytes`.

        Frame by frame, looking only once whether more follows: `recv_multipart` asks libzmq twice as often and takes
        2.5 times as long (4.5 against 1.8 us). A message of another shape shows as a frame that is missing or over.
        Being refused (`Again`) costs more than asking first, but only if it happens once a message: so it is asked
        after the first, which at moderate rates is the only one.
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
        """Close both, dropping what is queued."""
        if self.monitor is not None:
            self.socket.disable_monitor()
            self.monitor.close(0)
            self.monitor = None
        self.socket.close(0)


class ReplaySocket:
    """DEALER with one request sent."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, start: int, settings: SocketSettings
    ) -> None:
        """Raises zmq.ZMQError when the endpoint cannot be used."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        try:
            _tune(self.socket, settings, settings.replay_hwm)
            self.socket.connect(endpoint)
            self.socket.send_multipart(replay_request(start), zmq.NOBLOCK)
        except zmq.ZMQError:
            self.close()
            raise

    def fd(self) -> int:
        """File descriptor that wakes for answers."""
        return int(self.socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Close it, dropping what is queued."""
        self.socket.close(0)
