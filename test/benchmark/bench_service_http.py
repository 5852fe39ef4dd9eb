"""`POST /v1/match` over HTTP against a running index process with 64 publishers that hold the prompt.

    python bench_service_http.py [--core auto] [--requests 400]

Prints JSON: median and p99 in microseconds of 8,192 tokens with one client and of 512 tokens with four, `/healthz`
beside them as what the HTTP server alone costs, and the CPU time of the index for one request.
"""

import argparse
import http.client
import json
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import zmq

from kvsync_events import BlockStored, EventBatch, WireForm, encode_batch, encode_seq

BLOCK_SIZE, PUBLISHERS, TOKENS = 16, 64, 8192
FORM = WireForm.for_version("0.33.0")


def free_port() -> int:
    """A port nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None) -> bytes:
    """One request on a kept connection."""
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    assert response.status == 200, data[:300]
    return data


def client(port: int, method: str, path: str, body: bytes | None, requests: int, out: list[float]) -> None:
    """One keep-alive client; appends the seconds of each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    assert connection.sock is not None
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(requests // 10 + requests):
        begun = time.perf_counter()
        ask(connection, method, path, body)
        out.append(time.perf_counter() - begun)
    del out[: requests // 10]
    connection.close()


def measure(
    port: int, pid: int, method: str, path: str, body: bytes | None, clients: int, requests: int
) -> dict[str, float]:
    """Latencies of `clients` at once, and the server's CPU time for one request."""
    outs: list[list[float]] = [[] for _ in range(clients)]
    before = sum(psutil.Process(pid).cpu_times()[:2])
    threads = [threading.Thread(target=client, args=(port, method, path, body, requests, out)) for out in outs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cpu = sum(psutil.Process(pid).cpu_times()[:2]) - before
    times = sorted(each for out in outs for each in out)
    return {
        "median_us": 1e6 * statistics.median(times),
        "p99_us": 1e6 * times[int(0.99 * len(times))],
        "server_cpu_us": 1e6 * cpu / (clients * (requests + requests // 10)),
    }


def main() -> int:
    """Start an index, publish, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", default="auto")
    parser.add_argument("--requests", type=int, default=400)
    options = parser.parse_args()
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
                "healthz": measure(port, process.pid, "GET", "/healthz", None, 1, options.requests),
                "match_8192_one_client": measure(port, process.pid, "POST", "/v1/match", body, 1, options.requests),
                "match_8192_limit_4": measure(port, process.pid, "POST", "/v1/match", best, 1, options.requests),
                "match_512_four_clients": measure(port, process.pid, "POST", "/v1/match", short, 4, options.requests),
            }
        finally:
            process.terminate()
            process.wait(20)
            context.destroy(linger=0)
    print(json.dumps({"publishers": PUBLISHERS, "results": results}, indent=2))
    return 0


def wait_live(port: int) -> None:
    """Until every publisher is live."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/readyz")
            if json.loads(connection.getresponse().read())["live"] == PUBLISHERS:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit("the index did not become ready")


def wait_matched(port: int, body: bytes) -> None:
    """Until all publishers hold the whole prompt."""
    deadline = time.monotonic() + 60
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while time.monotonic() < deadline:
        answer = json.loads(ask(connection, "POST", "/v1/match", body))
        if [row["matched_tokens"] for row in answer["matches"]] == [TOKENS] * PUBLISHERS:
            return
        time.sleep(0.1)
    raise SystemExit("the publishers' blocks did not become visible")


if __name__ == "__main__":
    sys.exit(main())
