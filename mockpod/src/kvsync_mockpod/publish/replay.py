"""The replay server: a ROUTER socket that answers `[start]` with the buffered batches from there on and an end marker.

Requests are served on the event loop, a slice of batches at a time, so that a long replay does not delay other work. As
in vLLM, a request that does not have exactly three frames is never answered, and libzmq may drop frames of a long
replay to a client that reads slowly. Unlike vLLM, the memory that clients which do not read can take is bounded
(`backlog.py`): their answers are dropped without an end marker, and counted.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import zmq

from kvsync_events import FrameError, WireForm, parse_replay_request, replay_end, replay_reply
from kvsync_mockpod.config import KVEventsConfig
from kvsync_mockpod.errors import StartError
from kvsync_mockpod.faults.active import ActiveFaults
from kvsync_mockpod.faults.spec import ReplayLie, ReplaySilent, ReplaySlow, ReplayTruncate
from kvsync_mockpod.logs import get_logger
from kvsync_mockpod.publish.backlog import Backlog, BacklogLimits
from kvsync_mockpod.publish.curve import CurveServer

_log = get_logger(__name__)
_SLICE = 64
_MAX_ACTIVE = 64
_LINGER_MS = 200
_LIBZMQ_DEFAULT_HWM = 1000
_POLL_S = 0.02
"""How often an interrupted answer checks whether its client has read."""


@dataclass(slots=True)
class _Manner:
    """How one request is answered, which faults may change."""

    delay_s: float = 0.0
    limit: int | None = None
    marker: bool = True
    lies_about: str = ""


class ReplayServer:
    """Serves the buffer of one rank. `requests`, `refused` and `batches` count what it has done."""

    def __init__(
        self,
        rank: int,
        form: WireForm,
        config: KVEventsConfig,
        buffer: deque[tuple[int, bytes]],
        faults: ActiveFaults,
        log_position: Callable[[], int],
        limits: BacklogLimits | None = None,
        curve: CurveServer | None = None,
    ) -> None:
        self._curve = curve
        self.backlog = Backlog(limits or BacklogLimits())
        self._rank = rank
        self._form = form
        self._topic = config.topic
        self._buffer = buffer
        self._faults = faults
        self._log_position = log_position
        newest = tuple(int(part) for part in form.version.split(".")[:2]) >= (0, 33)
        self._hwm = min(2 * (config.buffer_steps + 1), 2**31 - 1) if newest else _LIBZMQ_DEFAULT_HWM
        self._socket: zmq.Socket[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._active: dict[asyncio.Task[None], bytes] = {}
        """The answers being sent, with the identity of the client of each."""
        self.endpoint: str | None = None
        self.requests = self.refused = self.batches = 0

    def open(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str) -> None:
        """Bind the socket.

        Raises:
            StartError: the endpoint cannot be bound; the message names it.
        """
        socket = context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.SNDHWM, self._hwm)
        socket.setsockopt(zmq.LINGER, 0)
        socket.copy_threshold = 0
        if self._curve is not None:
            self._curve.secure(socket)
        if "::" in endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            socket.close(0)
            raise StartError(f"replay: {endpoint}: {error.strerror}") from None
        self._socket = socket
        self.endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT) if endpoint.endswith(":0") else endpoint

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve requests that arrive at the socket on `loop`."""
        if self._socket is None:
            return
        self._loop = loop
        loop.add_reader(self._socket.FD, self._on_readable)
        loop.call_soon(self._on_readable)

    def _on_readable(self) -> None:
        """Receive all waiting requests. The descriptor signals changes only, so the socket has to be emptied."""
        socket = self._socket
        while socket is not None and not socket.closed and socket.poll(0, zmq.POLLIN):
            try:
                frames = socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_request(frames)

    def _on_request(self, frames: Sequence[bytes]) -> None:
        number = self.requests
        self.requests += 1
        try:
            start = parse_replay_request(frames[1:])
        except FrameError as error:
            self._refuse(str(error))
            return
        if len(self._active) >= _MAX_ACTIVE or self._loop is None:
            self._refuse(f"{_MAX_ACTIVE} replays are being served")
            return
        if not self.backlog.admits(frames[0], self._active.values()):
            self._refuse("the client, or too many clients, have not read earlier answers")
            return
        manner = self._manner_of(number, start)
        if manner is None:
            return
        task = self._loop.create_task(self._serve(frames[0], start, manner))
        self._active[task] = frames[0]
        task.add_done_callback(self._active.pop)

    def _manner_of(self, number: int, start: int) -> _Manner | None:
        """How the faults in force want a request to be answered; None: not at all."""
        manner = _Manner()
        if not self._faults.replay_active:
            return manner
        for fault, _ in self._faults.on_replay(self._rank, number):
            self._faults.record(self._rank, fault.kind, self._log_position(), None, request=number, start=start)
            if isinstance(fault, ReplaySilent):
                return None
            if isinstance(fault, ReplaySlow):
                manner.delay_s += fault.ms / 1000
            elif isinstance(fault, ReplayTruncate):
                manner.limit, manner.marker = fault.replies, fault.marker
            elif isinstance(fault, ReplayLie):
                manner.lies_about = fault.about
        return manner

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        _log.warning("replay_request_not_answered", rank=self._rank, reason=reason)

    async def _serve(self, identity: bytes, start: int, manner: _Manner) -> None:
        wanted = _falsified([row for row in self._buffer if row[0] >= start], manner.lies_about)[: manner.limit]
        size = 1 if manner.delay_s else _SLICE
        for position in range(0, len(wanted), size):
            if manner.delay_s:
                await asyncio.sleep(manner.delay_s)
            for seq, payload in wanted[position : position + size]:
                if self.backlog.full(identity) and not await self._read_by(identity):
                    self._refuse(f"the client has not read for {self.backlog.limits.patience_s:g} s; its answer ends")
                    return
                self._send([identity, *replay_reply(self._form, self._topic, seq, payload)])
                self.batches += 1
            await asyncio.sleep(0)
        if manner.marker:
            self._send([identity, *replay_end(self._form, self._topic)])

    async def _read_by(self, client: bytes) -> bool:
        """Wait until the client has read enough to get more; False if it reads nothing for too long."""
        before, waited = self.backlog.unread(client), 0.0
        while self.backlog.full(client):
            if waited >= self.backlog.limits.patience_s:
                return False
            await asyncio.sleep(_POLL_S)
            now = self.backlog.unread(client)
            waited = waited + _POLL_S if now >= before else 0.0
            before = now
        return True

    def _send(self, frames: list[bytes]) -> None:
        socket = self._socket
        if socket is None:
            return
        try:
            tracker = socket.send_multipart(frames, zmq.NOBLOCK, copy=False, track=True)
        except zmq.Again:
            self.refused += 1
        else:
            assert tracker is not None
            self.backlog.add(frames[0], tracker, sum(map(len, frames)))
        # Sending may have consumed the signal of a request that arrived in the meantime.
        if self._loop is not None and socket.poll(0, zmq.POLLIN):
            self._loop.call_soon(self._on_readable)

    def close(self) -> None:
        """Stop serving and close the socket."""
        for task in self._active:
            task.cancel()
        if self._socket is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._socket.FD)
            self._socket.close(_LINGER_MS)
            self._socket = None


def _falsified(rows: list[tuple[int, bytes]], about: str) -> list[tuple[int, bytes]]:
    """What a server that lies sends instead of `rows`."""
    if about == "end":
        return []
    if about == "order":
        return rows[::-1]
    if about == "payload":
        return [(seq, payload) for (seq, _), (_, payload) in zip(rows, [*rows[1:], *rows[:1]], strict=True)]
    return rows
