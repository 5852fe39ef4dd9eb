"""Measures `POST /v1/match` against a running index process with 64 publishers that hold the prompt.

    python bench_service_http.py [--core auto] [--requests 400] [--rounds 7]

Prints JSON: the median and p99 in microseconds for 8,192 tokens with one client and for 512 tokens with four, and the
CPU time of the server per request. Each is measured alternately with a bare server (uvloop and httptools without a
framework) that takes the same bytes and answers with as many; the difference is the work of the index. The clients
share one thread with plain sockets, so that they contribute little to the figures.
"""

import argparse
import contextlib
import http.client
import json
import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import zmq

from kvsync_events import BlockStored, EventBatch, WireForm, encode_batch, encode_seq
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import wait_until
from kvsync_workload.percentiles import percentile

BLOCK_SIZE, PUBLISHERS, TOKENS = 16, 64, 8192
FORM = WireForm.for_version("0.33.0")


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> bytes:
    """Send one request on an open connection and return the body of the answer."""
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    assert response.status == 200, data[:300]
    return data


def request_bytes(method: str, path: str, body: bytes) -> bytes:
    """Return a whole HTTP request."""
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Client:
    """A keep-alive connection with one request at a time."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._missing = 0
        self._head = b""
        self._begun = 0.0

    def send(self) -> None:
        """Send the request."""
        self._head, self._missing = b"", -1
        self._begun = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> float | None:
        """Read from the socket, and return the duration of the request in seconds once the answer is complete."""
        data = self.socket.recv(1 << 18)
        assert data, "the server closed the connection"
        if self._missing < 0:
            self._head += data
            head, found, rest = self._head.partition(b"\r\n\r\n")
            if not found:
                return None
            assert head.startswith(b"HTTP/1.1 200"), head
            self._missing = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n", 1)[0]) - len(rest)
        else:
            self._missing -= len(data)
        return time.perf_counter() - self._begun if self._missing == 0 else None


def measure(port: int, request: bytes, clients: int, requests: int) -> list[float]:
    """Return the seconds of each request of some clients, each of which sends the next one after an answer."""
    with selectors.DefaultSelector() as selector:
        made = [Client(port, request) for _ in range(clients)]
        for each in made:
            selector.register(each.socket, selectors.EVENT_READ, each)
            each.send()
        times: list[float] = []
        while len(times) < requests:
            for key, _ in selector.select():
                took = key.data.receive()
                if took is not None:
                    times.append(took)
                    key.data.send()
        for each in made:
            each.socket.close()
    return times[requests // 10 :]


class Measured:
    """The samples of one server."""

    def __init__(self, pid: int, port: int, request: bytes, clients: int) -> None:
        self._process = psutil.Process(pid)
        self._port, self._request, self._clients = port, request, clients
        self.times: list[float] = []
        self.medians: list[float] = []
        self._cpu = 0.0
        self._requests = 0

    def round(self, requests: int) -> None:
        """Take one round of samples."""
        before = sum(self._process.cpu_times()[:2])
        times = measure(self._port, self._request, self._clients, requests)
        self._cpu += sum(self._process.cpu_times()[:2]) - before
        self._requests += requests
        self.times += times
        self.medians.append(statistics.median(times))

    def figures(self) -> dict[str, float]:
        """Return figures in microseconds. `best_round_us` is the round with the least effect of other processes."""
        times = self.times
        return {
            "median_us": round(1e6 * statistics.median(times), 1),
            "best_round_us": round(1e6 * min(self.medians), 1),
            "p99_us": round(1e6 * percentile(times, 99), 1),
            "server_cpu_us": round(1e6 * self._cpu / self._requests, 1),
        }


def bare_server(answer_bytes: int) -> None:
    """Serve, in a child process, answers of a fixed size with uvloop and httptools alone."""
    import asyncio

    import httptools
    import uvloop

    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % answer_bytes + b"x" * answer_bytes

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport
            self.parser = httptools.HttpRequestParser(self)

        def data_received(self, data: bytes) -> None:
            self.parser.feed_data(data)

        def on_message_begin(self) -> None:
            self.parts: list[bytes] = []

        def on_body(self, body: bytes) -> None:
            self.parts.append(body)

        def on_message_complete(self) -> None:
            b"".join(self.parts)
            self.transport.write(answer)  # type: ignore[attr-defined]

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(serve())


@contextlib.contextmanager
def bare(answer_bytes: int) -> Iterator[tuple[int, int]]:
    """Run a bare server during the block, as (pid, port)."""
    command = [sys.executable, __file__, "--bare", str(answer_bytes)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield child.pid, int(child.stdout.readline())
    finally:
        child.terminate()
        child.wait(20)
        child.stdout.close()


def compare(pid: int, port: int, body: bytes, clients: int, options: argparse.Namespace) -> dict[str, object]:
    """Measure the index and the bare server alternately."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    answer = ask(connection, "POST", "/v1/match", body)
    connection.close()
    with bare(len(answer)) as (bare_pid, bare_port):
        request = request_bytes("POST", "/v1/match", body)
        index, reference = Measured(pid, port, request, clients), Measured(bare_pid, bare_port, request, clients)
        for _ in range(options.rounds):
            for each in (index, reference, reference, index):
                each.round(options.requests)
        ratio = statistics.median(a / b for a, b in zip(index.medians, reference.medians, strict=True))
        return {"index": index.figures(), "bare": reference.figures(), "ratio": round(ratio, 2)}


def main() -> int:
    """Start an index, publish the blocks, measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", default="auto")
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--bare", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare is not None:
        bare_server(options.bare)
        return 0
    rng = random.Random(1)
    tokens = [65_536 + rng.randrange(60_000) for _ in range(TOKENS)]
    hashes = [rng.getrandbits(64) for _ in range(TOKENS // BLOCK_SIZE)]
    event = BlockStored(hashes, None, tokens, BLOCK_SIZE, medium="GPU")
    payload = encode_batch(EventBatch(time.time(), [event], 0), FORM)
    context = zmq.Context()
    sockets = [context.socket(zmq.PUB) for _ in range(PUBLISHERS)]
    ports = [each.bind_to_random_port("tcp://127.0.0.1") for each in sockets]
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "publishers.yaml")
        rows = [{"name": f"pod-{at}", "model": "m", "endpoint": f"tcp://127.0.0.1:{p}"} for at, p in enumerate(ports)]
        path.write_text(json.dumps(rows))
        command = [sys.executable, "-m", "kvsync_indexer.main", "--port", str(port), "--host", "127.0.0.1"]
        command += ["--publishers", str(path), "--core", options.core, "--log-level", "error"]
        process = subprocess.Popen(command)
        try:
            wait_live(port)
            for each in sockets:
                each.send_multipart([b"", encode_seq(0), payload])
            body = json.dumps({"model": "m", "token_ids": tokens}).encode()
            short = json.dumps({"model": "m", "token_ids": tokens[:512]}).encode()
            best = json.dumps({"model": "m", "token_ids": tokens, "limit": 4}).encode()
            wait_matched(port, body)
            results = {
                "match_8192_one_client": compare(process.pid, port, body, 1, options),
                "match_8192_limit_4": compare(process.pid, port, best, 1, options),
                "match_512_four_clients": compare(process.pid, port, short, 4, options),
            }
        finally:
            process.terminate()
            process.wait(20)
            context.destroy(linger=0)
    print(json.dumps({"publishers": PUBLISHERS, "results": results}, indent=2))
    return 0


def wait_live(port: int) -> None:
    """Wait until every publisher is live."""

    def all_live() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/readyz")
        live: int = json.loads(connection.getresponse().read())["live"]
        return live == PUBLISHERS

    wait_until("every publisher is live", all_live, deadline_s=60, every_s=0.1, retry_on=(OSError,))


def wait_matched(port: int, body: bytes) -> None:
    """Wait until all publishers hold the whole prompt."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def all_matched() -> bool:
        answer = json.loads(ask(connection, "POST", "/v1/match", body))
        return [row["matched_tokens"] for row in answer["matches"]] == [TOKENS] * PUBLISHERS

    wait_until("the blocks of every publisher are visible", all_matched, deadline_s=60, every_s=0.1)


if __name__ == "__main__":
    sys.exit(main())
