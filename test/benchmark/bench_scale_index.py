"""Measures one stand-alone index with very many publishers on real sockets.

    python bench_scale_index.py [--publishers 1 100 1000] [--batches 40000] [--rate 4000] [--queries 1000]

Prints JSON. The sockets of the publishers are in another process, and `kvsync-indexer` runs in a third, with its HTTP
API. For each number of publishers: the time until all are live; descriptors, threads, resident memory and CPU share of
the idle index; its CPU time per batch of 32 blocks, which arrive at `--rate` per second over all publishers, and the
growth of its resident memory per block; and its CPU time and the median latency of `POST /v1/match` for a prompt of 512
tokens that one publisher holds. CPU times are those of the index process, as the kernel counts them in steps of 10 ms,
less what the idle index uses in the same time.
"""

import argparse
import http.client
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from bench_payloads import BLOCK_SIZE, make_hashes, make_tokens
from bench_service_publishers import PER, Publishers

from kvsync_testkit.processes import Index
from kvsync_testkit.waiting import wait_until

SEED = 1
DEADLINE_S = 300.0
IDLE_S = 5.0


class Watched:
    """What the kernel says of a process."""

    def __init__(self, pid: int) -> None:
        self._folder = Path("/proc", str(pid))

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Resident memory in bytes."""
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(list((self._folder / "fd").iterdir()))

    def threads(self) -> int:
        """Threads."""
        return len(list((self._folder / "task").iterdir()))


def first_prompt() -> list[int]:
    """The tokens of the first batch that the publishing process sends."""
    rng = random.Random(SEED)
    make_hashes(PER, rng)
    return [int(token) for token in make_tokens(PER * BLOCK_SIZE, rng)]


def applied(index: Index) -> int:
    """Batches that the index has applied."""
    rows = index.ok("GET", "/v1/publishers")["publishers"]
    return sum(row["batches"] for row in rows)


def send(index: Index, publishers: Publishers, count: int, rate: float, *, reached: int) -> None:
    """Send `count` batches and wait until the index has applied `reached` in all."""
    publishers.send(count, rate)
    publishers.wait_sent()
    wait_until("the batches are applied", lambda: applied(index) >= reached, deadline_s=DEADLINE_S, every_s=1.0)


def ask(index: Index, body: bytes, count: int) -> tuple[list[float], int]:
    """The latencies of `count` matches on one connection, and the size of the last answer."""
    connection = http.client.HTTPConnection("127.0.0.1", index.port, timeout=60)
    latencies, size = [], 0
    for _ in range(count):
        begun = time.perf_counter()
        connection.request("POST", "/v1/match", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        size = len(answer.read())
        latencies.append(time.perf_counter() - begun)
        assert answer.status == 200
    connection.close()
    return latencies, size


def measure(count: int, batches: int, rate: float, queries: int, folder: Path) -> dict[str, float]:
    """Run one index with `count` publishers and return the figures."""
    publishers = Publishers(count, SEED)
    entries = [
        {"name": f"p{number}", "model": "m", "endpoint": f"tcp://127.0.0.1:{port}"}
        for number, port in enumerate(publishers.ports)
    ]
    begun = time.perf_counter()
    index = Index(*entries, folder=folder)
    try:
        index.live()
        figures: dict[str, float] = {"publishers": count, "start_to_live_s": round(time.perf_counter() - begun, 2)}
        process = Watched(index.process.pid)
        cpu, begun = process.cpu_s(), time.perf_counter()
        time.sleep(IDLE_S)
        idle = (process.cpu_s() - cpu) / (time.perf_counter() - begun)
        figures |= {
            "idle_cpu_share": round(idle, 3),
            "idle_resident_mib": round(process.resident() / (1 << 20), 1),
            "descriptors": process.descriptors(),
            "threads": process.threads(),
        }
        send(index, publishers, count, 0.0, reached=count)
        resident, cpu, begun = process.resident(), process.cpu_s(), time.perf_counter()
        send(index, publishers, batches, rate, reached=count + batches)
        cpu = process.cpu_s() - cpu - idle * (time.perf_counter() - begun)
        figures["cpu_us_per_batch"] = round(1e6 * cpu / batches, 1)
        figures["resident_bytes_per_block"] = round((process.resident() - resident) / batches / PER, 1)
        figures["core_bytes_per_block"] = round(index.metric("kvsync_indexer_core_bytes") / (count + batches) / PER, 1)
        body = json.dumps({"model": "m", "token_ids": first_prompt()}).encode()
        ask(index, body, 20)
        cpu, begun = process.cpu_s(), time.perf_counter()
        latencies, size = ask(index, body, queries)
        cpu = process.cpu_s() - cpu - idle * (time.perf_counter() - begun)
        figures |= {
            "cpu_us_per_match": round(1e6 * cpu / queries),
            "match_p50_us": round(1e6 * statistics.median(latencies)),
            "answer_bytes": size,
        }
        return figures
    finally:
        index.stop()
        publishers.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--publishers", type=int, nargs="+", default=[1, 100, 1000])
    parser.add_argument("--batches", type=int, default=40_000)
    parser.add_argument("--rate", type=float, default=4_000.0)
    parser.add_argument("--queries", type=int, default=1_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure(count, options.batches, options.rate, options.queries, Path(folder)) for count in options.publishers
        ]
    print(json.dumps({"load": os.getloadavg(), "blocks_per_batch": PER, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
