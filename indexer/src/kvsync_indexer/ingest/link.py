"""The sockets of one publisher in the I/O thread: opening, reading and closing them. The follower decides the rest."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import zmq

from kvsync_events import REPLAY_END, FrameError, Removals, parse_replay_reply
from kvsync_indexer.core import IndexCore
from kvsync_indexer.ingest.sockets import Curve, CurveKeys, EventSocket, ReplaySocket, SocketSettings
from kvsync_indexer.latency import StreamMeter
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import ApplyGuard, Follower, Log, PublisherMachine, State

_log = structlog.get_logger("kvsync_indexer.ingest")

BATCH = 256
"""Messages taken from one socket before other sockets get their turn."""
BATCH_BYTES = 1 << 20
"""The same limit in bytes: the digest and the core read what was received again, best from the CPU's cache."""
TURN_S = 0.01
"""A read that took longer is followed by a smaller one: as long a turn as one publisher may have, about."""
LEAST = 4
"""The smallest read, in messages."""
REOPEN_S = 0.5
"""Pause in seconds after an endpoint could not be opened, for example because its port is taken."""


@dataclass(slots=True)
class Shared:
    """What all links of one ingest thread use."""

    core: IndexCore
    context: zmq.Context[zmq.Socket[bytes]]
    sockets: SocketSettings
    topic: str
    curve_keys: CurveKeys | None
    """The key pair for publishers with CURVE; None if none may have it."""
    curve_server_key: str | None
    """CURVE public key of publishers that name none."""
    watch: Callable[[int, Callable[[], bool]], None]
    """Call the function when the descriptor wakes; it returns True if there is more to read."""
    unwatch: Callable[[int], None]
    guard: ApplyGuard
    between: Callable[[], None]
    """Called between two calls of the core for one run."""
    trust_changed: Callable[[], None]
    matched: frozenset[State]
    """The states in which queries may match a publisher."""
    meter: StreamMeter
    log: Callable[[Log], None]
    """Takes the log lines of the state machines."""
    monotonic: Callable[[], float] = time.monotonic


class PublisherLink:
    """Owns the event socket and the replay socket of one publisher. Every method runs in the I/O thread."""

    def __init__(self, spec: PublisherSpec, machine: PublisherMachine, shared: Shared) -> None:
        self.spec = spec
        self.machine = machine
        self.follower = Follower(
            machine,
            shared.core,
            self,
            shared.meter,
            matched=shared.matched,
            guard=shared.guard,
            log=shared.log,
            between=shared.between,
            trust_changed=shared.trust_changed,
        )
        self.totals = self.follower.totals
        self.problem: str | None = None
        """Why the event socket could not be opened or the publisher refuses it."""
        self.engine_version: str | None = None
        """What the engine says of itself; set by the service, None while it is not known."""
        self.connected = False
        """A peer is connected to the event socket."""
        self._said: tuple[str | None, Removals | None] = (None, None)
        """Version and removals as the follower knows them."""
        self._shared = shared
        self._events: EventSocket | None = None
        self._replay: ReplaySocket | None = None
        self._event_fds: tuple[int, int] = (-1, -1)
        self._replay_fd = -1
        self._replay_attempt = 0
        self._open_link = 0
        self._most = BATCH
        self._reopen_at: float | None = None

    @property
    def epoch(self) -> str:
        """Identity of the process behind the stream: that of discovery if it has one, and the incarnation."""
        standing = self.machine.standing
        return f"{standing.epoch or 'stream'}#{standing.incarnation}"

    def tick(self, now: float) -> None:
        """Run the timers: the follower's, and opening again what could not be opened."""
        settings = self._shared.sockets
        said = self.engine_version, self.spec.removals
        if said != self._said:
            self._said = said
            self.follower.engine_is(*said, now)
        if self.connected and settings.heartbeat_s > 0:
            self.follower.alive(now - settings.heartbeat_timeout_s, now)
        if self._reopen_at is not None and now >= self._reopen_at:
            self._open()
        self.follower.tick(now)

    def close(self) -> None:
        """Close every socket; the follower stays as it is, for a snapshot."""
        self.disconnect()

    # -- sockets, as the follower requests them -----------------------------------------------------------------

    def connect(self, link: int) -> None:
        """Open a new event socket in place of every open socket."""
        self.disconnect()
        self._open_link = link
        self._open()

    def disconnect(self) -> None:
        """Close every open socket."""
        self.cancel_replay()
        self.connected = False
        self._reopen_at = None
        if self._events is not None:
            for fd in self._event_fds:
                self._shared.unwatch(fd)
            self._events.close()
            self._events = None

    def request_replay(self, attempt: int, start: int) -> None:
        """Open a fresh replay socket and send the request. If that fails, the attempt will time out."""
        self.cancel_replay()
        self._replay_attempt = attempt
        endpoint = self.spec.replay_endpoint
        assert endpoint is not None
        try:
            self._replay = ReplaySocket(self._shared.context, endpoint, start, self._shared.sockets, self._curve())
        except zmq.ZMQError as error:
            _log.warning("replay_endpoint_failed", publisher=self.spec.name, endpoint=endpoint, problem=error.strerror)
            return
        self._replay_fd = self._replay.fd()
        self._shared.watch(self._replay_fd, self._read_replay)

    def cancel_replay(self) -> None:
        """Close the replay socket."""
        if self._replay is not None:
            self._shared.unwatch(self._replay_fd)
            self._replay.close()
            self._replay = None

    def _open(self) -> None:
        shared, spec = self._shared, self.spec
        self._reopen_at = None
        topic = shared.topic if spec.topic is None else spec.topic
        try:
            self._events = EventSocket(
                shared.context, spec.endpoint, topic, shared.sockets, bind=spec.bind, curve=self._curve()
            )
        except zmq.ZMQError as error:
            self.problem = f"{'bind' if spec.bind else 'connect'} {spec.endpoint}: {error.strerror}"
            _log.warning("endpoint_failed", publisher=spec.name, problem=self.problem)
            self._reopen_at = shared.monotonic() + REOPEN_S
            return
        self.problem = None
        self._event_fds = self._events.fds()
        shared.watch(self._event_fds[1], self._read_monitor)
        shared.watch(self._event_fds[0], self._read_events)

    def _curve(self) -> Curve | None:
        key, keys = self.spec.server_key or self._shared.curve_server_key, self._shared.curve_keys
        return None if key is None or keys is None else Curve(key, keys)

    # -- reading ------------------------------------------------------------------------------------------------

    def _is_open(self, link: int) -> bool:
        return self._events is not None and self._open_link == link

    def _read_monitor(self) -> bool:
        if self._events is None:
            return False
        link = self._open_link
        changes = self._events.connection_changes()
        if self.problem != self._events.refusal:
            self.problem = self._events.refusal
            if self.problem is not None:
                _log.warning("publisher_refuses", publisher=self.spec.name, problem=self.problem)
        for connected in changes:
            now = self._shared.monotonic()
            self.connected = connected
            if connected:
                self.follower.connected(link, now)
            else:
                self.follower.disconnected(link, now)
            if not self._is_open(link):
                return False
        return False

    def _read_events(self) -> bool:
        """Read once. The monitor goes first: a lost connection must be known before what the next one brings."""
        self._read_monitor()
        if self._events is None:
            return False
        link = self._open_link
        begun = self._shared.monotonic()
        received = self._events.receive(self._most, BATCH_BYTES * self._most // BATCH)
        self.follower.receive(link, received.messages, begun)
        spent_s = self._shared.monotonic() - begun
        self._most = max(LEAST, self._most // 2) if spent_s > TURN_S else min(BATCH, 2 * self._most)
        if received.problem is not None and self._is_open(link):
            self.follower.bad_frame(link, received.problem, self._shared.monotonic())
        return received.more and self._is_open(link)

    def _read_replay(self) -> bool:
        self._read_monitor()
        until = self._shared.monotonic() + TURN_S
        for _ in range(BATCH):
            if self._replay is None:
                return False
            if self._shared.monotonic() > until:
                return True
            try:
                frames = self._replay.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._take_answer(frames, self._replay_attempt, self._shared.monotonic())
        return True

    def _take_answer(self, frames: list[bytes], attempt: int, now: float) -> None:
        try:
            reply = parse_replay_reply(frames)
        except FrameError as error:
            self.follower.replay_failed(attempt, str(error), now)
            return
        if reply is not REPLAY_END:
            self.follower.replay_item(attempt, reply.seq, reply.payload, now)
            return
        self.follower.replay_end(attempt, now)
        if self._replay_attempt == attempt:  # else the follower has requested more on a new socket
            self.cancel_replay()
