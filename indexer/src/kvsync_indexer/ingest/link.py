"""One publisher in the I/O thread: its machine, its sockets, and the carrying out of what the machine asks for."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import zmq

from kvsync_events import (
    REPLAY_END,
    BlockStored,
    DecodeError,
    FrameError,
    decode_batch,
    parse_replay_reply,
)
from kvsync_indexer.core.errors import CoreError
from kvsync_indexer.core.protocol import Applied, IndexCore
from kvsync_indexer.ingest.latency import LatencyHistogram, batch_times
from kvsync_indexer.ingest.sockets import EventSocket, ReplaySocket, SocketSettings
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import (
    Action,
    Apply,
    CancelReplay,
    Clear,
    Connect,
    Disconnect,
    Log,
    PublisherMachine,
    Remove,
    RequestReplay,
)

_log = structlog.get_logger("kvsync_indexer.ingest")

BATCH = 256
"""Messages taken from one socket before others get their turn."""
BATCH_BYTES = 1 << 20
"""The same in bytes: what is read is read again at once, by the digest and by the core, and should still be near."""
REOPEN_S = 0.5
"""After an endpoint could not be opened (port taken)."""


@dataclass(slots=True)
class LinkTotals:
    """What the core made of one publisher's batches."""

    batches: int = 0
    events: int = 0
    stored: int = 0
    removed: int = 0
    cleared: int = 0
    unknown_removed: int = 0
    unknown_events: int = 0
    refused: int = 0
    evicted_since: int = 0
    cleared_since: int = 0

    def add(self, applied: Applied) -> None:
        """Count one call's result."""
        self.events += applied.events
        self.stored += applied.stored
        self.removed += applied.removed
        self.cleared += applied.cleared
        self.unknown_removed += applied.unknown_removed
        self.unknown_events += applied.unknown_events
        self.refused += applied.refused
        self.evicted_since += applied.removed + applied.unknown_removed
        self.cleared_since += applied.cleared


@dataclass(slots=True)
class Shared:
    """What all links of one ingest thread use."""

    core: IndexCore
    context: zmq.Context[zmq.Socket[bytes]]
    sockets: SocketSettings
    topic: str
    watch: Callable[[int, Callable[[], bool]], None]
    """Call the function when the descriptor wakes; True from it means there is more to read."""
    unwatch: Callable[[int], None]
    trust_changed: Callable[["PublisherLink"], None]
    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    arrival: LatencyHistogram = field(default_factory=LatencyHistogram)
    visible: LatencyHistogram = field(default_factory=LatencyHistogram)
    bytes_in: int = 0


def _block_size(payloads: tuple[bytes, ...]) -> int | None:
    """Tokens a block, from the first stored event that says it."""
    for payload in payloads:
        for event in decode_batch(payload).events:
            if isinstance(event, BlockStored) and event.block_size > 0:
                return event.block_size
    return None


class PublisherLink:
    """Drives one machine. Every method runs in the I/O thread."""

    def __init__(self, spec: PublisherSpec, machine: PublisherMachine, shared: Shared) -> None:
        self.spec = spec
        self.machine = machine
        self.totals = LinkTotals()
        self.lag_s: float | None = None
        self.problem: str | None = None
        self.block_size: int | None = None
        self._shared = shared
        self._events: EventSocket | None = None
        self._replay: ReplaySocket | None = None
        self._event_fds: tuple[int, int] = (-1, -1)
        self._replay_fd = -1
        self._replay_attempt = 0
        self._open_link = 0
        self._reopen_at: float | None = None
        self.connected = False
        self._trusted = False

    # -- machine ------------------------------------------------------------------------------------------------

    def perform(self, actions: list[Action]) -> None:
        """Carry out a machine's answer, in order. Trust is taken away before blocks change, given after."""
        if self._trusted and not self.machine.trusted:
            self._tell_trust()
        while actions:
            failed: tuple[int, str] | None = None
            for action in actions:
                if isinstance(action, Apply):
                    failed = self._apply(action)
                    if failed is not None:
                        break
                else:
                    self._perform_one(action)
            actions = self.machine.apply_failed(*failed, self._shared.monotonic()) if failed else []
        if self._trusted != self.machine.trusted:
            self._tell_trust()

    def _tell_trust(self) -> None:
        self._trusted = self.machine.trusted
        self._shared.trust_changed(self)

    def _perform_one(self, action: Action) -> None:
        core = self._shared.core
        match action:
            case Connect(link):
                self._close_sockets()
                self._open_link = link
                self._open()
            case Disconnect():
                self._close_sockets()
            case RequestReplay(attempt, start):
                self._open_replay(attempt, start)
            case CancelReplay():
                self._close_replay()
            case Clear():
                core.clear_publisher(self.spec.name)
                self.totals.evicted_since = self.totals.cleared_since = 0
            case Remove():
                core.remove_publisher(self.spec.name)
            case Log(level, event, fields):
                getattr(_log, level)(event, **fields)

    def _apply(self, action: Apply) -> tuple[int, str] | None:
        """Hand payloads to the core; (sequence, reason) of the first that it refuses."""
        name, totals, payloads = self.spec.name, self.totals, action.payloads
        try:
            if len(payloads) == 1:
                totals.add(self._shared.core.apply(name, payloads[0]))
            else:
                totals.add(self._shared.core.apply_many(name, payloads))
        except (DecodeError, CoreError) as error:
            return self._refused(action, str(error), getattr(error, "batch", None))
        except Exception as error:  # noqa: BLE001  one publisher's payload must never end the thread for all
            _log.exception("apply_crashed", publisher=name, seq=action.first_seq)
            return self._refused(action, f"{type(error).__name__}: {error}")
        totals.batches += len(payloads)
        if self.block_size is None and totals.stored:
            self.block_size = _block_size(payloads)
        return None

    def _refused(self, action: Apply, reason: str, batch: int | None = None) -> tuple[int, str]:
        """Which payload it was: the core applied those before the first one that it refused.

        `batch` is the place of one that is over a limit; one that cannot be decoded is looked for.
        """
        if len(action.payloads) == 1:
            return action.first_seq, reason
        if batch is not None:
            self.totals.batches += batch
            return action.first_seq + batch, reason
        for seq, payload in enumerate(action.payloads, action.first_seq):
            try:
                decode_batch(payload)
            except DecodeError:
                self.totals.batches += seq - action.first_seq
                return seq, reason
        # Refused for another reason, somewhere in the run: nothing is known of what was applied.
        self._shared.core.clear_publisher(self.spec.name)
        self.machine.incomplete = True
        return action.first_seq, reason

    def tick(self, now: float) -> None:
        """Timers: the machine's, and opening again what could not be opened."""
        if self.connected and self._shared.sockets.heartbeat_s > 0:
            self.perform(self.machine.alive(now - self._shared.sockets.heartbeat_timeout_s, now))
        if self._reopen_at is not None and now >= self._reopen_at:
            self._open()
        self.perform(self.machine.tick(now))
        if self.machine.incomplete and self.machine.trusted and self.totals.evicted_since + self.totals.cleared_since:
            resident = self._shared.core.stats(self.spec.name).blocks
            self.machine.turned_over(self.totals.evicted_since, self.totals.cleared_since, resident)
            self.totals.evicted_since = self.totals.cleared_since = 0

    # -- sockets ------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        shared, spec = self._shared, self.spec
        self._reopen_at = None
        topic = shared.topic if spec.topic is None else spec.topic
        try:
            self._events = EventSocket(shared.context, spec.endpoint, topic, shared.sockets, bind=spec.bind)
        except zmq.ZMQError as error:
            self.problem = f"{'bind' if spec.bind else 'connect'} {spec.endpoint}: {error.strerror}"
            _log.warning("endpoint_failed", publisher=spec.name, problem=self.problem)
            self._reopen_at = shared.monotonic() + REOPEN_S
            return
        self.problem = None
        self._event_fds = self._events.fds()
        shared.watch(self._event_fds[1], self._read_monitor)
        shared.watch(self._event_fds[0], self._read_events)

    def _close_sockets(self) -> None:
        self._close_replay()
        self.connected = False
        self._reopen_at = None
        if self._events is not None:
            for fd in self._event_fds:
                self._shared.unwatch(fd)
            self._events.close()
            self._events = None

    def _open_replay(self, attempt: int, start: int) -> None:
        self._close_replay()
        self._replay_attempt = attempt
        endpoint = self.spec.replay_endpoint
        assert endpoint is not None
        try:
            self._replay = ReplaySocket(self._shared.context, endpoint, start, self._shared.sockets)
        except zmq.ZMQError as error:
            _log.warning("replay_endpoint_failed", publisher=self.spec.name, endpoint=endpoint, problem=error.strerror)
            return  # the machine's time-out says the rest
        self._replay_fd = self._replay.fd()
        self._shared.watch(self._replay_fd, self._read_replay)

    def _close_replay(self) -> None:
        if self._replay is not None:
            self._shared.unwatch(self._replay_fd)
            self._replay.close()
            self._replay = None

    def close(self) -> None:
        """Close every socket; the machine stays as it is (for a snapshot)."""
        self._close_sockets()

    # -- reading ------------------------------------------------------------------------------------------------

    def _read_monitor(self) -> bool:
        if self._events is None:
            return False
        for connected in self._events.connection_changes():
            now = self._shared.monotonic()
            link = self._open_link
            self.connected = connected
            if connected:
                self.perform(self.machine.connected(link, now))
            else:
                self.perform(self.machine.disconnected(link, now))
                if self._events is None or self._open_link != link:
                    return False
        return False

    def _read_events(self) -> bool:
        """Take up to BATCH messages; runs of a live publisher go to the core in one call."""
        self._read_monitor()  # first: a lost connection must be known before what comes over the next one
        if self._events is None:
            return False
        received = self._events.receive(BATCH, BATCH_BYTES)
        link, first = self._open_link, 0
        run: list[bytes] = []
        follows = self.machine.run_from
        for seq, payload in received.messages:
            if seq == follows:
                if not run:
                    first = seq
                run.append(payload)
                follows += 1
                continue
            self._take(first, run)
            self._take(seq, [payload])
            if self._events is None or self._open_link != link:
                return False  # the machine has given the connection up, and with it what came behind
            run, follows = [], self.machine.run_from
        self._take(first, run)
        if received.problem is not None and self._events is not None and self._open_link == link:
            self.perform(self.machine.bad_frame(link, received.problem, self._shared.monotonic()))
        return received.more and self._events is not None

    def _take(self, first: int, payloads: list[bytes]) -> None:
        """Hand live batches to the machine, and count how late they were."""
        if not payloads:
            return
        shared = self._shared
        arrived = shared.wall()
        made = batch_times(payloads)
        shared.bytes_in += sum(map(len, payloads))
        self.perform(self.machine.frames(self._open_link, first, payloads, shared.monotonic()))
        if made:
            self.lag_s = arrived - made[-1]
            shared.arrival.observe_since(made, arrived)
            if self._trusted:
                shared.visible.observe_since(made, shared.wall())

    def _read_replay(self) -> bool:
        self._read_monitor()
        for _ in range(BATCH):
            if self._replay is None:
                return False
            try:
                frames = self._replay.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            now = self._shared.monotonic()
            attempt = self._replay_attempt
            try:
                reply = parse_replay_reply(frames)
            except FrameError as error:
                self.perform(self.machine.replay_failed(attempt, str(error), now))
                continue
            if reply is REPLAY_END:
                self.perform(self.machine.replay_end(attempt, now))
                self._close_finished(attempt)
            else:
                self._shared.bytes_in += len(reply.payload)
                self.perform(self.machine.replay_item(attempt, reply.seq, reply.payload, now))
        return True

    def _close_finished(self, attempt: int) -> None:
        """After the end marker, unless the machine has asked for more on a new socket meanwhile."""
        if self._replay_attempt == attempt:
            self._close_replay()
