"""Measures the blocks that one pod stores and removes per second, with distinct 512-token prompts and a full cache.

    python bench_mockpod_churn.py [--rounds 5] [--requests 600] [--blocks 1024 65536] [--json FILE]

Each prompt stores 32 blocks and evicts 32, and a subscriber reads all events. The target is 28,000 stored and 28,000
removed blocks per second at any cache size. The reference is the bare server stack, which answers the same requests
with one chunk.
"""

import argparse
import json
import random
import statistics
import sys
import threading
from pathlib import Path

import zmq
from bench_mockpod_load import Served, drive, post, start_pod, start_reference

PROMPT, BLOCK, CONNECTIONS = 512, 16, 64
POD_END = b'"kv_transfer_params":null}'
REFERENCE_END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


def requests(count: int, seed: int) -> list[bytes]:
    """Return requests with distinct prompts."""
    chance = random.Random(seed)
    return [
        post(
            "/v1/completions",
            {"prompt": [chance.randrange(70_000, 2**31) for _ in range(PROMPT)], "max_tokens": 1},
        )
        for _ in range(count)
    ]


class Reader(threading.Thread):
    """Reads and counts every event batch of a pod."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.bytes = self.batches = 0
        self._port = port
        self._ended = threading.Event()

    def run(self) -> None:
        """Read until `stop` is called."""
        with zmq.Context() as context, context.socket(zmq.SUB) as reader:
            reader.set_hwm(0)
            reader.linger = 0
            reader.setsockopt(zmq.SUBSCRIBE, b"")
            reader.connect(f"tcp://127.0.0.1:{self._port}")
            while not self._ended.is_set():
                if reader.poll(100):
                    self.bytes += len(reader.recv_multipart()[2])
                    self.batches += 1

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self.join()


def one_round(served: Served, batch: list[bytes], end: bytes) -> dict[str, float]:
    """Return the rates of one pass. `blocks` counts stored blocks, and as many are removed."""
    blocks = len(batch) * PROMPT // BLOCK
    before = served.cpu_s
    wall = drive(served.port, batch, CONNECTIONS, end)
    cpu = served.cpu_s - before
    return {"blocks_per_s": blocks / wall, "blocks_per_cpu_s": blocks / cpu, "cpu_us": cpu / len(batch) * 1e6}


def measure(cache: int, rounds: int, count: int) -> dict[str, float]:
    """Return the medians for one cache size."""
    pod = start_pod("--num-gpu-blocks-override", str(cache + 1), "--max-model-len", "4096")
    reader = Reader(pod.events_port)
    reader.start()
    try:
        fill = cache * BLOCK // PROMPT + 64
        for first in range(0, fill, 1000):
            drive(pod.port, requests(min(1000, fill - first), -1 - first), CONNECTIONS, POD_END)
        rows = [one_round(pod, requests(count, number), POD_END) for number in range(rounds)]
        found = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        return {**found, "rss_mib": pod.rss_mib, "event_batches": reader.batches, "event_bytes": reader.bytes}
    finally:
        pod.stop()
        reader.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1024, 65_536])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    reference = start_reference(0)
    try:
        rows = [one_round(reference, requests(options.requests, number), REFERENCE_END) for number in range(3)]
    finally:
        reference.stop()
    result: dict[str, object] = {
        "reference": {key: statistics.median(row[key] for row in rows) for key in rows[0]},
        "caches": {str(cache): measure(cache, options.rounds, options.requests) for cache in options.blocks},
        "rounds": options.rounds,
        "requests": options.requests,
    }
    json.dump(result, sys.stdout, indent=1)
    print()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
