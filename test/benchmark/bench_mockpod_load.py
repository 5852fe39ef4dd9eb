"""Shared by the pod benchmarks: a pod as a process, and a client that needs little CPU time.

The client is raw HTTP over an event loop protocol. It writes prepared requests and only looks for the end of each
answer, so that the pod has most of one core when two are shared. Rates are given by wall clock and by the pod's own CPU
time. On a busy machine only the latter is meaningful.
"""

import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import uvloop

from kvsync_testkit.ports import free_ports
from kvsync_testkit.waiting import wait_until

READY_S = 30.0


@dataclass
class Served:
    """A server process under load."""

    process: subprocess.Popen[bytes]
    port: int
    events_port: int

    @property
    def cpu_s(self) -> float:
        """The CPU time that the process has used."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def rss_mib(self) -> float:
        """The resident memory of the process."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 2**20

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start(arguments: list[str], port: int, events_port: int = 0, path: str = "/health") -> Served:
    """Start a server and wait until it answers."""
    process = subprocess.Popen([sys.executable, *arguments], stderr=subprocess.DEVNULL)

    def answers() -> bool:
        if process.poll() is not None:
            sys.exit(f"the server did not start: {' '.join(arguments)}")
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).read()
        return True

    try:
        wait_until(f"{arguments[1]} answers", answers, deadline_s=READY_S, every_s=0.01, retry_on=(OSError,))
    except BaseException:
        process.kill()
        raise
    return Served(process, port, events_port)


def start_pod(*flags: str, buffer_steps: int = 10_000) -> Served:
    """Start a pod with events and without latency, which keeps `buffer_steps` batches for replay."""
    port, events, replay = free_ports(3)
    config = {
        "enable_kv_cache_events": True,
        "endpoint": f"tcp://*:{events}",
        "replay_endpoint": f"tcp://*:{replay}",
        "buffer_steps": buffer_steps,
    }
    base = ["-m", "kvsync_mockpod", "--host", "127.0.0.1", "--port", str(port)]
    return start([*base, "--kv-events-config", json.dumps(config), *flags], port, events)


def start_reference(chunks: int) -> Served:
    """Start the bare server stack, which answers with as many prepared chunks and has no engine."""
    (port,) = free_ports(1)
    return start([str(Path(__file__)), "reference", str(port), str(chunks)], port, path="/")


def post(path: str, body: object) -> bytes:
    """Return a request as bytes."""
    data = json.dumps(body).encode()
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the previous one has ended with `end`."""

    def __init__(self, requests: Iterator[bytes], end: bytes, done: "asyncio.Future[None]") -> None:
        self._requests = requests
        self._end = end
        self._done = done
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        self._tail = b""
        if request is None:
            self._transport.close()
            if not self._done.done():
                self._done.set_result(None)
            return
        self._transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-len(self._end) - 64 :]
        if self._tail.endswith(self._end):
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("the server closed the connection"))


def drive(port: int, requests: list[bytes], connections: int, end: bytes) -> float:
    """Send all requests over some connections and return the wall time in seconds."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        left = iter(requests)
        ended = [loop.create_future() for _ in range(connections)]
        started = time.perf_counter()
        for done in ended:
            await loop.create_connection(lambda done=done: _Connection(left, end, done), "127.0.0.1", port)
        await asyncio.gather(*ended)
        return time.perf_counter() - started

    return uvloop.run(run())


def _serve_reference(port: int, chunks: int) -> None:
    import uvicorn

    chunk = b'data: {"id":"cmpl-0","object":"text_completion","choices":[{"index":0,"text":" word"}]}\n\n'

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        if scope["method"] == "POST":
            await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for _ in range(chunks):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", loop="uvloop", http="httptools", lifespan="off")


if __name__ == "__main__":
    _serve_reference(int(sys.argv[2]), int(sys.argv[3]))
