"""Compares kvsync's index service with Dynamo's stand-alone indexer.

Both subscribe to the same kind of publisher in vLLM's wire form, run one indexing thread, and are queried over HTTP by
the same client. Ingest is timed from sending the first batch until a query finds the whole last one.
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
from kvsync_testkit.ports import free_port
from kvsync_testkit.waiting import wait_until

PUBLISHERS, QUERY_BLOCKS, QUERIES = 64, 512, 200
WAIT_S = 60.0


@dataclass
class Service:
    """A running indexer and the path and field names of its queries."""

    process: psutil.Process
    connection: http.client.HTTPConnection
    path: str
    model_field: str

    def ask(self, tokens: list[int]) -> dict[str, int]:
        """Return the matched tokens by worker."""
        body = json.dumps({self.model_field: "m", "token_ids": tokens}).encode()
        return self.read(self.send(body))

    def send(self, body: bytes) -> bytes:
        """Send one query on the open connection and return the body of the answer."""
        self.connection.request("POST", self.path, body, {"content-type": "application/json"})
        response = self.connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise SystemExit(f"{self.path}: {response.status} {data[:200]!r}")
        return data

    def read(self, answer: bytes) -> dict[str, int]:
        """Read an answer of either service."""
        document = json.loads(answer)
        if "matches" in document:
            return {row["publisher"]: row["matched_tokens"] for row in document["matches"] if row["matched_tokens"]}
        return {
            worker: row["longest_matched"] for worker, row in document["instances"].items() if row["longest_matched"]
        }

    def cpu_s(self) -> float:
        """Return the CPU time of the process."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@contextmanager
def serve(side: str, python: str, core: str, ports: list[int]) -> Iterator[Service]:
    """Start the indexer of `side` (dynamo or kvsync), which follows the publishers on `ports`."""
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

            def connected() -> bool:
                if process.poll() is not None:
                    raise SystemExit(f"the indexer of {side} did not start: {' '.join(command)}")
                connection.connect()
                return True

            wait_until(f"the indexer of {side} accepts connections", connected, deadline_s=WAIT_S, retry_on=(OSError,))
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
    """PUB sockets with their sequence numbers."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", count: int) -> None:
        self._sockets = [context.socket(zmq.PUB) for _ in range(count)]
        for one in self._sockets:
            one.setsockopt(zmq.SNDHWM, 0)
            one.linger = 0
        self.ports = [int(one.bind_to_random_port("tcp://127.0.0.1")) for one in self._sockets]
        self._next = [0] * count

    def send(self, number: int, payload: bytes) -> None:
        """Send one batch of one publisher."""
        self._sockets[number].send_multipart([b"", encode_seq(self._next[number]), payload])
        self._next[number] += 1

    def close(self) -> None:
        """Close the sockets."""
        for one in self._sockets:
            one.close()


def wait_visible(service: Service, tokens: list[int], workers: int, pause_s: float) -> None:
    """Wait until so many workers hold all of the tokens."""
    wait_until(
        f"{workers} workers hold the prompt",
        lambda: list(service.ask(tokens).values()).count(len(tokens)) >= workers,
        deadline_s=WAIT_S,
        every_s=pause_s,
    )


def connect(service: Service, senders: Senders, seed: int) -> None:
    """Send until the service has subscribed to every publisher, as its answers show."""
    ((hashes, tokens),) = make_chains(1, 1, seed)

    def followed() -> bool:
        if len(service.ask(tokens)) == len(senders.ports):
            return True
        for number in range(len(senders.ports)):
            senders.send(number, encode_stored(hashes, tokens))
        return False

    wait_until(f"{len(senders.ports)} publishers are followed", followed, deadline_s=WAIT_S, every_s=0.1)


def measure_ingest(side: str, python: str, core: str, per: int, blocks: int) -> dict[str, float]:
    """Measure one publisher that sends as fast as it can."""
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
    """Measure queries for a prompt of 8,192 tokens that 64 publishers hold."""
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
    """Return all figures of one side."""
    found: dict[str, float] = {}
    for per in (32, 512):
        found |= measure_ingest(side, python, core, per, blocks)
    return found | measure_query(side, python, core)
