"""The I/O thread: the sockets of every publisher in one selector, commands from other threads, and timers.

Sockets are watched by their file descriptors, so one turn of the loop costs what the sockets with messages cost,
however many there are. A ZMQ descriptor only says that something has changed. So a socket is read until it is empty, or
it stays in the `hot` set and is read again in the next turn, after every other socket.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TypeVar

import structlog
import zmq

from kvsync_indexer.core.errors import CoreError
from kvsync_indexer.core.protocol import IndexCore
from kvsync_indexer.ingest.link import PublisherLink, Shared
from kvsync_indexer.ingest.sockets import CurveKeys, SocketSettings
from kvsync_indexer.latency import StreamMeter
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.snapshot import StreamPoint
from kvsync_indexer.sync import SUSPECT, TRUSTED, ApplyGuard, Log, NoGuard, PublisherMachine, SyncSettings, write_log

_log = structlog.get_logger("kvsync_indexer.ingest")
_T = TypeVar("_T")

TICK_S = 0.05
"""Seconds between two calls of every publisher's timers."""
MAX_SOCKETS = 65_536


class Ingest:
    """Follows publishers in its own thread. `add`, `remove`, `call` and the readers can be called from any thread."""

    def __init__(
        self,
        core: IndexCore,
        *,
        sync: SyncSettings | None = None,
        sockets: SocketSettings | None = None,
        topic: str = "",
        curve_keys: CurveKeys | None = None,
        curve_server_key: str | None = None,
        trust_suspect: bool = False,
        guard: ApplyGuard | None = None,
        log: Callable[[Log], None] = write_log,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.core = core
        self.sync = sync or SyncSettings()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        self._selector = selectors.DefaultSelector()
        self._hot: dict[int, Callable[[], bool]] = {}
        self._commands: deque[Callable[[], None]] = deque()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._stopping = False
        self._links: dict[str, PublisherLink] = {}
        self._resume: dict[str, StreamPoint] = {}
        self._trusted: Mapping[str, frozenset[str]] = {}
        self._by_model: Mapping[str, tuple[PublisherLink, ...]] = {}
        self._monotonic = monotonic
        self.heartbeat = monotonic()
        """Monotonic time at which the thread last began a read or a call of the core, for the liveness probe."""
        self.defects = 0
        """Unexpected exceptions; each is logged."""
        self.shared = Shared(
            core=core,
            context=self._context,
            sockets=sockets or SocketSettings(),
            topic=topic,
            curve_keys=curve_keys,
            curve_server_key=curve_server_key,
            watch=self._watch,
            unwatch=self._unwatch,
            guard=guard or NoGuard(),
            between=self._breathe,
            trust_changed=self._publish_trust,
            matched=SUSPECT if trust_suspect else TRUSTED,
            meter=StreamMeter(wall),
            log=log,
            monotonic=monotonic,
        )
        self._thread = threading.Thread(target=self._main, name="kvsync-ingest", daemon=True)

    # -- any thread ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Close every socket and end the thread, waiting up to `timeout_s` seconds for it."""
        self._stopping = True
        self._wake()
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join(timeout_s)

    @property
    def running(self) -> bool:
        """The thread is alive."""
        return self._thread.is_alive()

    def add(self, spec: PublisherSpec) -> None:
        """Follow a publisher, or adopt what has changed in its specification."""
        self._submit(lambda: self._add(spec))

    def remove(self, name: str) -> None:
        """Forget a publisher."""
        self._submit(lambda: self._remove(name))

    def call(self, function: Callable[[], _T]) -> "Future[_T]":
        """Run `function` in the I/O thread between two reads, so that no batch is half applied while it runs."""
        future: Future[_T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:  # noqa: BLE001  the caller gets it from the future
                future.set_exception(error)

        self._submit(run)
        return future

    def resume_from(self, point: StreamPoint) -> None:
        """Before `start`: the core holds this publisher's blocks from a snapshot taken at `point`."""
        self._resume[point.name] = point

    def drop_unclaimed(self) -> "Future[int]":
        """Forget restored publishers that no source has named; the future gives their number."""
        return self.call(self._drop_unclaimed)

    @property
    def trusted(self) -> Mapping[str, frozenset[str]]:
        """The names of the publishers that may be matched, by model. The mapping is replaced, never changed."""
        return self._trusted

    def links_of(self, model: str) -> tuple[PublisherLink, ...]:
        """The publishers of one model, in the order of their names."""
        return self._by_model.get(model, ())

    def links(self) -> list[PublisherLink]:
        """All publishers, in the order they were added. Other threads may read their attributes and call nothing."""
        return list(self._links.values())

    def link(self, name: str) -> PublisherLink | None:
        """The publisher of this name, None if it is not followed."""
        return self._links.get(name)

    # -- I/O thread ---------------------------------------------------------------------------------------------

    def _submit(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # the pipe is full, so the thread will wake; or closed, so it has ended
            self._wake_w.send(b"x")

    def _watch(self, fd: int, read: Callable[[], bool]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, read)
        self._hot[fd] = read  # the socket may hold messages already, which its descriptor need not show

    def _unwatch(self, fd: int) -> None:
        self._selector.unregister(fd)
        self._hot.pop(fd, None)

    def _main(self) -> None:
        self._selector.register(self._wake_r, selectors.EVENT_READ, self._drain_wake)
        next_tick = self._monotonic()
        try:
            while not self._stopping:
                self._turn(max(0.0, next_tick - self._monotonic()))
                now = self.heartbeat = self._monotonic()
                if now >= next_tick:
                    next_tick = now + TICK_S
                    for link in list(self._links.values()):
                        self._guarded(partial(link.tick, now))
        finally:
            self._close()

    def _turn(self, timeout_s: float) -> None:
        ready: dict[int, Callable[[], bool]] = dict(self._hot)
        for key, _ in self._selector.select(0 if ready else timeout_s):
            ready[key.fd] = key.data
        while self._commands:
            self._guarded(self._commands.popleft())
        for fd, read in ready.items():
            self._hot.pop(fd, None)
            self.heartbeat = self._monotonic()
            if self._guarded(read) and self._is_watched(fd, read):
                self._hot[fd] = read

    def _breathe(self) -> None:
        """Let others have the core's lock and the interpreter between two calls of the core."""
        self.heartbeat = self._monotonic()
        time.sleep(0)

    def _is_watched(self, fd: int, read: Callable[[], bool]) -> bool:
        key = self._selector.get_map().get(fd)
        return key is not None and key.data == read

    def _guarded(self, function: Callable[[], object]) -> bool:
        """Call it; a defect that one publisher triggers must not stop the others."""
        try:
            return bool(function())
        except Exception:  # noqa: BLE001
            self.defects += 1
            with contextlib.suppress(Exception):  # nor must a log that cannot be written
                _log.exception("ingest_defect")
            return False

    def _drain_wake(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._wake_r.recv(4096)
        return False

    def _add(self, spec: PublisherSpec) -> None:
        link = self._links.get(spec.name)
        now = self._monotonic()
        if link is not None and link.spec.same_stream(spec):
            link.spec = spec
            if spec.epoch is not None:
                link.follower.epoch_changed(spec.epoch, now)
            self._publish_trust()
            return
        if link is not None:
            self._remove(spec.name)
        point = self._claim(spec)
        try:
            self.core.add_publisher(spec.name, spec.model)
        except CoreError as error:
            _log.error("publisher_refused", publisher=spec.name, reason=str(error))
            return
        machine = PublisherMachine(spec.name, self._settings(spec), now=now, epoch=spec.epoch)
        if point is not None:
            machine.resume(point.next_seq, point.base_seq, point.tail, incomplete=point.incomplete)
        link = self._links[spec.name] = PublisherLink(spec, machine, self.shared)
        _log.info("publisher_added", publisher=spec.name, endpoint=spec.endpoint, model=spec.model, source=spec.source)
        self._publish_models()
        if point is not None and point.last_copy_only:
            link.follower.false_hits("as it was seen to do before the snapshot", now)
        link.follower.engine_is(None, spec.removals, now)
        link.follower.start(now)

    def _claim(self, spec: PublisherSpec) -> StreamPoint | None:
        """Return where to resume a publisher; restored blocks of another process, model or rule are dropped."""
        point = self._resume.pop(spec.name, None)
        if point is None:
            return None
        counted_otherwise = spec.removals == "last_copy" and not point.last_copy_only
        if point.model == spec.model and point.epoch == spec.epoch and not counted_otherwise:
            return point
        self.core.remove_publisher(spec.name)
        _log.info("snapshot_outdated", publisher=spec.name, saved=point.epoch, now=spec.epoch)
        return None

    def _drop_unclaimed(self) -> int:
        names = list(self._resume)
        for name in names:
            self.core.remove_publisher(name)
        self._resume.clear()
        return len(names)

    def _publish_models(self) -> None:
        models: dict[str, list[PublisherLink]] = {}
        for name in sorted(self._links):
            models.setdefault(self._links[name].spec.model, []).append(self._links[name])
        self._by_model = {model: tuple(links) for model, links in models.items()}

    def _settings(self, spec: PublisherSpec) -> SyncSettings:
        return replace(self.sync, replay=spec.replay_endpoint is not None)

    def _remove(self, name: str) -> None:
        link = self._links.pop(name, None)
        if link is None:
            return
        self._publish_models()
        self._publish_trust()
        link.follower.removed(self._monotonic())
        link.close()

    def _publish_trust(self) -> None:
        trusted: dict[str, set[str]] = {}
        for name, link in self._links.items():
            if link.spec.ready and link.follower.trusted:
                trusted.setdefault(link.spec.model, set()).add(name)
        self._trusted = {model: frozenset(names) for model, names in trusted.items()}

    def _close(self) -> None:
        for link in self._links.values():
            self._guarded(link.close)
        self._selector.close()
        self._wake_r.close()
        self._wake_w.close()
        self._context.destroy(linger=0)
