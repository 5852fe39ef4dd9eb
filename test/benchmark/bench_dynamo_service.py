"""Service against service: our index process and Dynamo's stand-alone indexer, fed the same sockets, asked over HTTP.

Both subscribe to the same kind of publisher (vLLM's wire form), run with one indexing thread, and are asked with the
same client. Ingest is timed from the first batch sent until a query finds the last one whole.
"""

import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import zmq
from bench_payloads import BLOCK_SIZE, encode_stored, make_chains

from kvsync_events import encode_seq

PUBLISHERS, QUERY_BLOCKS, QUERIES = 64, 512, 200
WAIT_S = 60.0


@dataclass
class Service:
    """A running indexer and how it is asked."""

    process: psutil.Process
    connection: http.client.HTTPConnection
    path: str
    model_field: str

    def ask(self, tokens: list[int]) -> dict[str, int]:
        """Matched tokens by worker."""
        body = json.dumps({self.model_field: "m", "token_ids": tokens}).encode()
        return self.read(self.send(body))

    def send(self, body: bytes) -> bytes:
        """One query on the kept connection."""
        self.connection.request("POST", self.path, body, {"content-type": "application/json"})
        response = self.connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise SystemExit(f"{self.path}: {response.status} {data[:200]!r}")
        return data

    def read(self, answer: bytes) -> dict[str, int]:
        """An answer of either service."""
        document = json.loads(answer)
        if "matches" in document:
            return {row["publisher"]: row["matched_tokens"] for row in document["matches"] if row["matched_tokens"]}
        return {
            worker: row["longest_matched"] for worker, row in document["instances"].items() if row["longest_matched"]
        }

    def cpu_s(self) -> float:
        """CPU time of the process."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve(side: str, python: str, core: str, ports: list[int]) -> Iterator[Service]:
    """Start `side` (dynamo or kvsync) following publishers on `ports`."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        if side == "dynamo":
            workers = ",".join(f"{number}=tcp://127.0.0.1:{one}" for number, one in enumerate(ports))
            command = [python, "-m", "dynamo.indexer", "--block-size", str(BLOCK_SIZE), "--port", str(port)]
            command += ["--threads", "1", "--model-name", "m", "--workers", workers]
            path, field = "/query", "model_name"
        else:
            table = Path(folder, "publishers.yaml")
            rows = [{"name": str(n), "model": "m", "endpoint": f"tcp://127.0.0.1:{p}"} for n, p in enumerate(ports)]
            table.write_text(json.dumps(rows))
            command = [sys.executable, "-m", "kvsync_indexer.main", "--host", "127.0.0.1", "--port", str(port)]
            command += ["--publishers", str(table), "--core", core, "--log-level", "error"]
            path, field = "/v1/match", "model"
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            deadline = time.monotonic() + WAIT_S
            while True:
                try:
                    connection.connect()
                    break
                except OSError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(f"{side}'s indexer did not start: {' '.join(command)}") from None
                    time.sleep(0.05)
            assert connection.sock is not None
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield Service(psutil.Process(process.pid), connection, path, field)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Senders:
    """PUB sockets that count their sequence numbers."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", count: int) -> None:
        self._sockets = [context.socket(zmq.PUB) for _ in range(count)]
        for one in self._sockets:
            one.setsockopt(zmq.SNDHWM, 0)
            one.linger = 0
        self.ports = [int(one.bind_to_random_port("tcp://127.0.0.1")) for one in self._sockets]
        self._next = [0] * count

    def send(self, number: int, payload: bytes) -> None:
        """One batch of one publisher."""
        self._sockets[number].send_multipart([b"", encode_seq(self._next[number]), payload])
        self._next[number] += 1

    def close(self) -> None:
        """Close them."""
        for one in self._sockets:
            one.close()


def wait_visible(service: Service, tokens: list[int], workers: int, pause_s: float) -> None:
    """Until so many hold the whole of it."""
    deadline = time.monotonic() + WAIT_S
    while list(service.ask(tokens).values()).count(len(tokens)) < workers:
        if time.monotonic() > deadline:
            raise SystemExit("what was published did not become visible")
        time.sleep(pause_s)


def connect(service: Service, senders: Senders, seed: int) -> None:
    """Send until each publisher's subscription has arrived, which a query tells."""
    deadline = time.monotonic() + WAIT_S
    ((hashes, tokens),) = make_chains(1, 1, seed)
    while len(service.ask(tokens)) < len(senders.ports):
        if time.monotonic() > deadline:
            raise SystemExit("the publishers were not followed")
        for number in range(len(senders.ports)):
            senders.send(number, encode_stored(hashes, tokens))
        time.sleep(0.1)


def measure_ingest(side: str, python: str, core: str, per: int, blocks: int) -> dict[str, float]:
    """One publisher, flat out."""
    chains = make_chains(blocks, per, seed=per)
    payloads = [encode_stored(*chain) for chain in chains]
    with zmq.Context() as context:
        senders = Senders(context, 1)
        with serve(side, python, core, senders.ports) as service:
            connect(service, senders, seed=10**6)
            cpu, begun = service.cpu_s(), time.perf_counter()
            for payload in payloads:
                senders.send(0, payload)
            wait_visible(service, chains[-1][1], 1, 0.02)
            wall, cpu = time.perf_counter() - begun, service.cpu_s() - cpu
        senders.close()
    return {f"ingest_{per}_cpu": blocks / cpu / 1e6, f"ingest_{per}_wall": blocks / wall / 1e6}


def measure_query(side: str, python: str, core: str) -> dict[str, float]:
    """A prompt of 8,192 tokens that 64 publishers hold."""
    ((hashes, tokens),) = make_chains(QUERY_BLOCKS, QUERY_BLOCKS, seed=random.Random(side).randrange(10**6))
    with zmq.Context() as context:
        senders = Senders(context, PUBLISHERS)
        with serve(side, python, core, senders.ports) as service:
            connect(service, senders, seed=10**6)
            for number in range(PUBLISHERS):
                senders.send(number, encode_stored(hashes, tokens))
            wait_visible(service, tokens, PUBLISHERS, 0.05)
            body = json.dumps({service.model_field: "m", "token_ids": tokens}).encode()
            for _ in range(20):
                service.send(body)
            cpu, times = service.cpu_s(), []
            for _ in range(QUERIES):
                begun = time.perf_counter()
                service.send(body)
                times.append(time.perf_counter() - begun)
            cpu = service.cpu_s() - cpu
        senders.close()
    return {"query_median": 1e6 * statistics.median(times), "query_cpu": 1e6 * cpu / QUERIES}


def measure_service(side: str, python: str, core: str, blocks: int) -> dict[str, float]:
    """All of one side's figures."""
    found: dict[str, float] = {}
    for per in (32, 512):
        found |= measure_ingest(side, python, core, per, blocks)
    return found | measure_query(side, python, core)
