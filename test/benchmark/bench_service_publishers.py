"""Measures many publishers in one I/O thread, and publishers that come and go.

    python bench_service_publishers.py [--core auto] [--counts 1 10 64 200 500] [--cycles 60]

Prints JSON. For each number of publishers, whose sockets are in another process and send alternately: the time until
all are live, the CPU time of this process per batch of 32 blocks, the latency from event to visible at 2,000 batches
per second in total, and gaps. Then, over cycles in which eight publishers are added, send, and are removed: the memory,
descriptors, threads and blocks that remain. The exit status is 1 if a batch was lost or something remained.
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
from kvsync_testkit.waiting import wait_until
from kvsync_workload.percentiles import percentile

PER, CHURN_PUBLISHERS, RATE = 32, 8, 2000.0
WAIT_S = 120.0


def publish(count: int, seed: int) -> None:
    """Bind the sockets in a child process, print the ports, and send batches for each line `BATCHES RATE` of stdin.

    The publishers send alternately. Rate 0 means as fast as possible.
    """
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
    """The child process with the sockets of the publishers."""

    def __init__(self, count: int, seed: int = 1) -> None:
        command = [sys.executable, __file__, "--publish", str(count), str(seed)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ports: list[int] = json.loads(self._line())

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()

    def send(self, batches: int, rate: float = 0.0) -> None:
        """Start sending batches; `wait_sent` waits until they are sent."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{batches} {rate}\n")
        self._child.stdin.flush()

    def wait_sent(self) -> None:
        """Wait until the batches of the last `send` are sent."""
        assert self._line() == "sent\n", "the publishing process ended"

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    """Poll often, since the wait is part of what is measured."""
    wait_until(what, holds, deadline_s=WAIT_S, every_s=0.002)


def applied(ingest: Ingest) -> int:
    """Return the number of batches applied over all publishers."""
    return sum(link.totals.batches for link in ingest.links())


def live(ingest: Ingest, count: int) -> bool:
    """Whether `count` publishers exist and all of them are live."""
    links = ingest.links()
    return len(links) == count and all(str(link.machine.state) == "live" for link in links)


def read_descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def read_resident() -> int:
    """Return the resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reach_all(ingest: Ingest, publishers: Publishers, count: int) -> None:
    """Send until the subscriptions of all publishers have arrived, and wait until no further batch is applied."""
    while any(not link.totals.batches for link in ingest.links()):
        publishers.send(count)
        publishers.wait_sent()
        time.sleep(0.05)
    before = -1
    while before != applied(ingest):
        before = applied(ingest)
        time.sleep(0.05)


class EveryLatency(LatencyHistogram):
    """Keeps every value, because buckets are too coarse for a benchmark."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        super().__init__()
        self.values: list[float] = []

    def observe_since(self, begun: list[float], now: float) -> None:
        """Record the latencies of one run of batches."""
        self.values += [now - each for each in begun]

    def quantile(self, share: float) -> float:
        """Return the exact quantile."""
        return percentile(self.values, round(100 * share)) or 0.0


def follow(core: str, count: int, batches: int, seconds: float) -> dict[str, float]:
    """Follow `count` publishers and return the figures."""
    publishers = Publishers(count)
    ingest = Ingest(make_core(core), sockets=SocketSettings(receive_hwm=0))  # type: ignore[arg-type]
    ingest.start()
    try:
        memory, begun = read_resident(), time.perf_counter()
        for number, port in enumerate(publishers.ports):
            ingest.add(PublisherSpec(name=f"p{number}", model="m", endpoint=f"tcp://127.0.0.1:{port}"))
        wait_for(f"{count} publishers live", lambda: live(ingest, count))
        live_s, memory = time.perf_counter() - begun, read_resident() - memory
        reach_all(ingest, publishers, count)
        first = applied(ingest)
        cpu = time.process_time()
        publishers.send(batches)
        publishers.wait_sent()
        wait_for(f"{batches} batches applied", lambda: applied(ingest) >= first + batches)
        cpu = time.process_time() - cpu
        paced = int(RATE * seconds)
        visible = ingest.shared.meter.visible = EveryLatency()  # only of the paced batches
        publishers.send(paced, RATE)
        publishers.wait_sent()
        wait_for(f"{paced} paced batches applied", lambda: applied(ingest) >= first + batches + paced)
        return {
            "publishers": count,
            "live_s": live_s,
            "resident_kib_each": memory / count / 1024,
            "cpu_us_per_batch": 1e6 * cpu / batches,
            "blocks_per_cpu_s": batches * PER / cpu,
            "visible_p50_ms": 1e3 * visible.quantile(0.5),
            "visible_p99_ms": 1e3 * visible.quantile(0.99),
            "gaps": sum(link.machine.counters.gaps for link in ingest.links()),
        }
    finally:
        ingest.stop()
        publishers.close()


def settle(descriptors: int, at_most_s: float = 0.3) -> None:
    """Wait for libzmq, which closes sockets in its own thread."""
    deadline = time.monotonic() + at_most_s
    while read_descriptors() > descriptors and time.monotonic() < deadline:
        time.sleep(0.002)


def churn(core: str, cycles: int, batches: int = 64) -> dict[str, float]:
    """Add, use and remove publishers repeatedly, and return the growth after the first third of the cycles."""
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
            wait_for("publishers live again", lambda: live(ingest, CHURN_PUBLISHERS))
            publishers.send(batches)
            publishers.wait_sent()
            # A batch that is sent before the subscription arrives is lost, so that only the last of each is waited for.
            publishers.send(CHURN_PUBLISHERS)
            publishers.wait_sent()
            wait_for("batches applied", lambda: applied(ingest) >= CHURN_PUBLISHERS)
            for number in range(CHURN_PUBLISHERS):
                ingest.remove(f"p{number}")
            wait_for("publishers gone", lambda: not ingest.links() and not index.stats().blocks)
            settle(descriptors[0] if descriptors else 0)
            resident.append(read_resident())
            descriptors.append(read_descriptors())
            threads.append(threading.active_count())
            left.append(index.stats().blocks)
        third = cycles // 3
        return {
            "cycles": cycles,
            "publishers_each": CHURN_PUBLISHERS,
            "cpu_ms_per_cycle": 1e3 * (time.process_time() - cpu) / cycles,
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
    print(json.dumps({"blocks_per_batch": PER, "publishers": rows, "churn": came_and_went}, indent=1))
    stayed = came_and_went["descriptors_growth"] > 0 or came_and_went["threads_growth"] > 0
    return int(stayed or any(row["gaps"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
