"""The path between one model engine and one index, in virtual time: connections, and batches on their way.

A connection keeps the order, as TCP does. The faults are those of what lies around it: a proxy, a full queue, an index
that reads late. The replay server at the other end is in `replay_server`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kvsync_testkit.clock import VirtualClock
from kvsync_testkit.faults.engine import ModelProcess
from kvsync_testkit.faults.knobs import Knobs
from kvsync_testkit.faults.replay_server import LATENCY_S, Listener, ReplayServer

READ_LIMIT = 32
"""Messages that the index takes in one read of an event socket."""


@dataclass(slots=True)
class Link:
    """One connection of the event socket."""

    number: int
    process: ModelProcess | None = None
    """The process it leads to; None until the handshake."""
    open: bool = True
    """The index still holds this socket."""
    last_s: float = 0.0
    """When the latest frame so far will arrive."""
    told_s: float = 0.0
    """When the index is told of the latest change."""
    untold: int = 0
    """Connection changes that the index has not been told of."""
    waiting: list[Callable[[], None]] = field(default_factory=list)
    """What a stall holds back."""
    inbox: list[tuple[int, bytes] | None] = field(default_factory=list)
    """Received and not read yet; None is a message that is no publication."""


class Path:
    """Connections and replays of one publisher. The process behind it can be replaced; the index end is `listener`."""

    def __init__(
        self,
        time: VirtualClock,
        rng: random.Random,
        process: ModelProcess,
        heartbeat_s: float,
        *,
        busy_s: float = 0.0,
        monitor_lag_s: float = 0.0,
        late_reads: bool = False,
    ) -> None:
        """Lead to `process`.

        Args:
            time: The clock.
            rng: Draws everything that is left to chance.
            process: The engine process at the other end.
            heartbeat_s: After how many seconds a silent peer is given up.
            busy_s: The index reads its event socket up to this much later than messages arrive, so that they pile up.
            monitor_lag_s: The index is told of connection changes up to this much later than they happen, while the
                socket connects again by itself.
            late_reads: What a socket had received when it was closed is handed in all the same, under its old number.
        """
        self.late_reads = late_reads
        self.busy_s = busy_s
        self.monitor_lag_s = monitor_lag_s
        self.time = time
        self.rng = rng
        self.process = process
        self.previous: ModelProcess | None = None
        self.up = True
        self.knobs = Knobs()
        self.heartbeat_s = heartbeat_s
        self.listener: Listener | None = None
        self.link: Link | None = None
        self.heard_s = -1.0
        """True time of the last thing that reached the index."""
        self.replays = ReplayServer(self)

    # -- event socket -----------------------------------------------------------------------------------------------

    def open_link(self, number: int) -> None:
        """The index opens an event socket; it keeps trying until the handshake succeeds."""
        self.close_link()
        self.link = Link(number)
        self._try_handshake(self.link)

    def close_link(self, *, for_good: bool = False) -> None:
        """The index closes its event socket; what is on the way is lost.

        `for_good` the index itself has ended, so that it cannot hand in late what it had received.
        """
        link, self.link = self.link, None
        if link is None:
            return
        link.open = False
        unread = [message for message in link.inbox if message is not None]
        if unread and self.late_reads and not for_good:
            self.time.call_later(self.rng.uniform(0.0, 0.05), lambda: self._hand_in(link, unread))

    def _try_handshake(self, link: Link) -> None:
        if not link.open or link.process is not None:
            return
        if not self.up or self.knobs.partition or self.knobs.stall:
            self.time.call_later(0.05, lambda: self._try_handshake(link))
            return
        self.time.call_later(LATENCY_S, lambda: self._handshake(link))

    def _handshake(self, link: Link) -> None:
        if not link.open or link.process is not None:
            return
        if not self.up:
            self._try_handshake(link)
            return
        link.process = self.process
        # The monitor's message may be read before or after the first frames, but its messages keep their order.
        delay = self.rng.choice((0.0, 0.004)) + self.rng.uniform(0.0, self.monitor_lag_s)
        link.told_s = max(link.told_s, self.time.now + delay)
        link.untold += 1
        self._later(link, link.told_s - self.time.now, lambda: self._tell(link, connected=True))

    def _tell(self, link: Link, *, connected: bool) -> None:
        link.untold -= 1
        if not link.open or self.listener is None:
            return
        if connected:
            self.heard_s = self.time.now
            self.listener.on_connected(link.number)
        else:
            self.listener.on_disconnected(link.number)

    def publish(self, seq: int, payload: bytes) -> None:
        """The present process sends a batch to whoever is connected to it."""
        link = self.link
        if link is None or link.process is not self.process or self.knobs.partition:
            return
        rng, knobs = self.rng, self.knobs
        if knobs.mute or rng.random() < knobs.drop:
            return
        if rng.random() < knobs.corrupt:
            payload = payload[: rng.randrange(len(payload))]
        if rng.random() < knobs.bad_frames:
            self._deliver(link, 0.0, lambda: self._arrive(link, None))
        self._deliver(link, 0.0, lambda: self._arrive(link, (seq, payload)), late=rng.random() < knobs.reorder)
        if rng.random() < knobs.duplicate:
            self._deliver(link, rng.choice((0.0, 0.05)), lambda: self._arrive(link, (seq, payload)))

    def _deliver(self, link: Link, extra: float, call: Callable[[], None], *, late: bool = False) -> None:
        """In order of sending, unless `late`: then whatever is sent in the next moments comes first."""
        delay = LATENCY_S + extra + (0.2 if self.knobs.delay else 0.0)
        arrive = max(link.last_s, self.time.now + delay)
        if late:
            arrive += self.rng.uniform(0.005, 0.08)
        elif not extra:
            link.last_s = arrive
        self.time.call_at(arrive, lambda: self._later(link, 0.0, call))

    def _later(self, link: Link, delay: float, call: Callable[[], None]) -> None:
        """Call now, or once a stall is over."""
        if self.knobs.stall:
            link.waiting.append(call)
        elif delay:
            self.time.call_later(delay, lambda: self._later(link, 0.0, call))
        else:
            call()

    def release_stalled(self) -> None:
        """A stall ended: what waited arrives, in order."""
        link = self.link
        if link is not None:
            calls, link.waiting = link.waiting, []
            for call in calls:
                call()

    def _arrive(self, link: Link, message: tuple[int, bytes] | None) -> None:
        """A message reaches the index's socket, which is read at once or a little later."""
        if not link.open:
            return
        self.heard_s = self.time.now
        link.inbox.append(message)
        if len(link.inbox) > 1:
            return  # a read is coming
        pause_s = self.rng.uniform(0.0, self.busy_s)
        if pause_s:
            self.time.call_later(pause_s, lambda: self._read(link))
        else:
            self._read(link)

    def _read(self, link: Link) -> None:
        """Hand in what waits, as the ingest thread does: publications up to the first message that is none."""
        while link.open and link.inbox and self.listener is not None:
            taken: list[tuple[int, bytes]] = []
            while link.inbox and len(taken) < READ_LIMIT and link.inbox[0] is not None:
                message = link.inbox.pop(0)
                assert message is not None
                taken.append(message)
            if taken:
                self.listener.on_messages(link.number, taken)
            if link.open and link.inbox and link.inbox[0] is None:
                link.inbox.pop(0)
                self.listener.on_bad_frame(link.number)

    def _hand_in(self, link: Link, messages: list[tuple[int, bytes]]) -> None:
        if self.listener is not None:
            self.listener.on_messages(link.number, messages)

    def cut(self, told_after_s: float) -> None:
        """The connection breaks; the index is told a little later."""
        link = self.link
        if link is not None and link.process is not None:
            link.process = None
            lag_s = self.rng.uniform(0.0, self.monitor_lag_s)
            link.told_s = max(self.time.now + told_after_s + lag_s, link.told_s)
            link.untold += 1
            self.time.call_at(link.told_s, lambda: self._tell(link, connected=False))
            # A socket that the index keeps connects again by itself, whether or not the index has read of it.
            again_s = self.time.now + 0.002 if self.monitor_lag_s else link.told_s + 0.05
            self.time.call_at(again_s, lambda: self._try_handshake(link))

    def join_new_process(self, process: ModelProcess, *, silently: bool) -> None:
        """Another process took the place of the old one; `silently` even the connection is handed on to it."""
        self.previous, self.process = self.process, process
        if silently and self.link is not None and self.link.process is not None:
            self.link.process = process

    @property
    def monitor_behind(self) -> bool:
        """The index has not been told of every connection change on its present socket."""
        return self.link is not None and self.link.untold > 0

    @property
    def alive_link(self) -> bool:
        """Heartbeats are answered on the present connection."""
        return (
            self.link is not None and self.link.process is not None and not (self.knobs.partition or self.knobs.stall)
        )
