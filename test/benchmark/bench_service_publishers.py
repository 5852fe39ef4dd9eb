"""Many publishers in one I/O thread, and publishers that come and go.

    python bench_service_publishers.py [--core auto] [--counts 1 10 64 200 500] [--cycles 60]

Prints JSON. By number of publishers (their sockets in another process, sending in turn): time until all are live, CPU
time of this process a batch of 32 blocks, event-to-visible latency at 2,000 batches a second over all of them, gaps.
Then cycles in which eight publishers are added, send, and are removed: what stays behind in memory, descriptors,
threads and blocks. Exit status 1 when a batch was lost or something stayed.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog
import zmq
from bench_payloads import BLOCK_SIZE, encode_stored, make_hashes, make_tokens, stamp

from kvsync_events import encode_seq
from kvsync_indexer.core import make_core
from kvsync_indexer.ingest import Ingest, SocketSettings
from kvsync_indexer.latency import LatencyHistogram
from kvsync_indexer.publishers import PublisherSpec

PER, CHURN_PUBLISHERS, RATE = 32, 8, 2000.0
WAIT_S = 120.0


def publish(count: int, seed: int) -> None:
    """Child process: bind, print the ports; for each line `BATCHES RATE` send so many in turn (rate 0: flat out)."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, 4096)
    sockets = [context.socket(zmq.PUB) for _ in range(count)]
    for one in sockets:
        one.setsockopt(zmq.SNDHWM, 0)
    print(json.dumps([one.bind_to_random_port("tcp://127.0.0.1") for one in sockets]), flush=True)
    sequence, rng = [0] * count, random.Random(seed)
    for line in sys.stdin:
        batches, rate = int(line.split()[0]), float(line.split()[1])
        payloads = [encode_stored(make_hashes(PER, rng), make_tokens(PER * BLOCK_SIZE, rng)) for _ in range(batches)]
        begun = time.perf_counter()
        for number, payload in enumerate(payloads):
            if rate:
                while time.perf_counter() < begun + number / rate:
                    time.sleep(0.0002)
                payload = stamp(payload, time.time())
            at = number % count
            sockets[at].send_multipart([b"", encode_seq(sequence[at]), payload])
            sequence[at] += 1
        print("sent", flush=True)
    context.destroy(linger=0)


class Publishers:
    """The child process with its sockets."""

    def __init__(self, count: int, seed: int = 1) -> None:
        command = [sys.executable, __file__, "--publish", str(count), str(seed)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ports: list[int] = json.loads(self._line())

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()

    def send(self, batches: int, rate: float = 0.0) -> None:
        """Have them sent; the next `wait_sent` waits for it."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{batches} {rate}\n")
        self._child.stdin.flush()

    def wait_sent(self) -> None:
        """Until the last `send` is done."""
        assert self._line() == "sent\n", "the publishing process ended"

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Poll; SystemExit names what did not come."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"after {WAIT_S:.0f} s still not: {what}")
        time.sleep(0.002)


def applied(ingest: Ingest) -> int:
    """Batches applied over all publishers."""
    return sum(link.totals.batches for link in ingest.links())


def live(ingest: Ingest, count: int) -> bool:
    """All of them are."""
    links = ingest.links()
    return len(links) == count and all(str(link.machine.state) == "live" for link in links)


def read_descriptors() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def read_resident() -> int:
    """Resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reach_all(ingest: Ingest, publishers: Publishers, count: int) -> None:
    """Send until everybody's subscription has arrived and nothing is on its way."""
    while any(not link.totals.batches for link in ingest.links()):
        publishers.send(count)
        publishers.wait_sent()
        time.sleep(0.05)
    told = -1
    while told != applied(ingest):
        told = applied(ingest)
        time.sleep(0.05)


class EveryLatency(LatencyHistogram):
    """Keeps every value: buckets are too coarse for a benchmark."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def observe_since(self, begun: list[float], now: float) -> None:
        """Keep the values of one run."""
        self.values += [now - each for each in begun]

    def quantile(self, share: float) -> float:
        """Exact."""
        return sorted(self.values)[int(share * (len(self.values) - 1))]


def follow(core: str, count: int, batches: int, seconds: float) -> dict[str, float]:
    """`count` publishers from start to end."""
    publishers = Publishers(count)
    ingest = Ingest(make_core(core), sockets=SocketSettings(receive_hwm=0))  # type: ignore[arg-type]
    ingest.start()
    try:
        memory, begun = read_resident(), time.perf_counter()
        for number, port in enumerate(publishers.ports):
            ingest.add(PublisherSpec(name=f"p{number}", model="m", endpoint=f"tcp://127.0.0.1:{port}"))
        wait_until(lambda: live(ingest, count), f"{count} publishers live")
        live_s, memory = time.perf_counter() - begun, read_resident() - memory
        reach_all(ingest, publishers, count)
        first = applied(ingest)
        cpu = time.process_time()
        publishers.send(batches)
        publishers.wait_sent()
        wait_until(lambda: applied(ingest) >= first + batches, f"{batches} batches applied")
        cpu = time.process_time() - cpu
        paced = int(RATE * seconds)
        visible = ingest.shared.meter.visible = EveryLatency()  # of the paced ones only
        publishers.send(paced, RATE)
        publishers.wait_sent()
        wait_until(lambda: applied(ingest) >= first + batches + paced, f"{paced} paced batches applied")
        return {
            "publishers": count,
            "live_s": live_s,
            "resident_kib_each": memory / count / 1024,
            "cpu_us_a_batch": 1e6 * cpu / batches,
            "blocks_per_cpu_s": batches * PER / cpu,
            "visible_p50_ms": 1e3 * visible.quantile(0.5),
            "visible_p99_ms": 1e3 * visible.quantile(0.99),
            "gaps": sum(link.machine.counters.gaps for link in ingest.links()),
        }
    finally:
        ingest.stop()
        publishers.close()


def settle(descriptors: int, at_most_s: float = 0.3) -> None:
    """libzmq closes sockets in a thread of its own: give it a moment."""
    deadline = time.monotonic() + at_most_s
    while read_descriptors() > descriptors and time.monotonic() < deadline:
        time.sleep(0.002)


def churn(core: str, cycles: int, batches: int = 64) -> dict[str, float]:
    """Publishers come, send and go; growth from the first third of the cycles to the end."""
    publishers = Publishers(CHURN_PUBLISHERS)
    index = make_core(core)  # type: ignore[arg-type]
    ingest = Ingest(index, sockets=SocketSettings(receive_hwm=0))
    ingest.start()
    resident, descriptors, threads, left = [], [], [], []
    cpu = time.process_time()
    try:
        for cycle in range(cycles):
            for number, port in enumerate(publishers.ports):
                spec = PublisherSpec(
                    name=f"p{number}", model="m", endpoint=f"tcp://127.0.0.1:{port}", epoch=f"life-{cycle}"
                )
                ingest.add(spec)
            wait_until(lambda: live(ingest, CHURN_PUBLISHERS), "publishers live again")
            publishers.send(batches)
            publishers.wait_sent()
            # What is sent while a subscription is on its way is not received: only the last of each is waited for.
            publishers.send(CHURN_PUBLISHERS)
            publishers.wait_sent()
            wait_until(lambda: applied(ingest) >= CHURN_PUBLISHERS, "batches applied")
            for number in range(CHURN_PUBLISHERS):
                ingest.remove(f"p{number}")
            wait_until(lambda: not ingest.links() and not index.stats().blocks, "publishers gone")
            settle(descriptors[0] if descriptors else 0)
            resident.append(read_resident())
            descriptors.append(read_descriptors())
            threads.append(threading.active_count())
            left.append(index.stats().blocks)
        third = cycles // 3
        return {
            "cycles": cycles,
            "publishers_each": CHURN_PUBLISHERS,
            "cpu_ms_a_cycle": 1e3 * (time.process_time() - cpu) / cycles,
            "resident_growth_kib": (statistics.median(resident[-third:]) - resident[third]) / 1024,
            "descriptors_growth": descriptors[-1] - descriptors[0],
            "threads_growth": threads[-1] - threads[0],
            "blocks_left": max(left),
        }
    finally:
        ingest.stop()
        publishers.close()


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--core", default="auto")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 10, 64, 200, 500])
    parser.add_argument("--batches", type=int, default=6000)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--cycles", type=int, default=60)
    parser.add_argument("--publish", nargs=2, type=int, metavar=("COUNT", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(*options.publish)
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    rows = [follow(options.core, count, options.batches, options.seconds) for count in options.counts]
    came_and_went = churn(options.core, options.cycles)
    print(json.dumps({"blocks_a_batch": PER, "publishers": rows, "churn": came_and_went}, indent=1))
    stayed = came_and_went["descriptors_growth"] > 0 or came_and_went["threads_growth"] > 0
    return int(stayed or any(row["gaps"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
