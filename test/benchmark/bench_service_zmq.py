"""Measures the ingest from a ZMQ socket to a visible block, with the publisher in another process.

    python bench_service_zmq.py [--core auto] [--blocks 1048576] [--per 32 512] [--rate 10000] [--seconds 5]

Prints JSON: blocks/s for each size (by wall time from the first batch until the last one is visible, and by CPU time of
this process), gaps, and the p50 and p99 from event to visible at a fixed rate of one-block batches. `bare` has the same
figures of a receiver that only takes the messages, measured alternately. On a shared machine the CPU time and the ratio
to `bare` are meaningful; wall time includes the effect of other processes. A gap or a lost batch is a failure.
"""

import argparse
import contextlib
import json
import logging
import random
import statistics
import struct
import subprocess
import sys
import time

import structlog
import zmq

from kvsync_events import BlockStored, EventBatch, WireForm, encode_batch, encode_seq
from kvsync_indexer.core import make_core
from kvsync_indexer.ingest import Ingest, PublisherLink, SocketSettings
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import State
from kvsync_testkit.waiting import DeadlineError, wait_until
from kvsync_workload.percentiles import percentile

BLOCK_SIZE = 16
_TS = struct.Struct(">d")
FORM = WireForm.for_version("0.33.0")


def payload_of(rng: random.Random, blocks: int, ts: float) -> bytes:
    """Return one batch that stores a chain of `blocks` new blocks."""
    hashes = [rng.getrandbits(64) for _ in range(blocks)]
    tokens = [65_536 + rng.randrange(60_000) for _ in range(blocks * BLOCK_SIZE)]
    return encode_batch(EventBatch(ts, [BlockStored(hashes, None, tokens, BLOCK_SIZE, medium="GPU")], 0), FORM)


def publish(blocks: int, per: int, rate: float) -> None:
    """Publish in a child process: bind, print the port, wait for the subscriber and for a line on stdin, and send.

    `rate` is in batches per second, and 0 means as fast as possible. The process prints the seconds that sending took.
    """
    rng = random.Random(per)
    payloads = [payload_of(rng, per, time.time()) for _ in range(blocks // per)]
    context = zmq.Context()
    socket = context.socket(zmq.XPUB)  # as PUB, but the subscription is a message
    socket.setsockopt(zmq.SNDHWM, 0)
    print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    socket.recv()
    print("subscribed", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    for seq, payload in enumerate(payloads):
        if rate:
            while time.perf_counter() < begun + seq / rate:
                time.sleep(0.0002)
            # the time of the batch is its first float
            payload = payload[:2] + _TS.pack(time.time()) + payload[10:]
        socket.send_multipart([b"", encode_seq(seq), payload])
    print(time.perf_counter() - begun, flush=True)
    sys.stdin.readline()
    context.destroy(linger=0)


def live_link(ingest: Ingest) -> PublisherLink | None:
    """Return the link of the publisher once it is live."""
    link = ingest.link("p")
    return link if link is not None and link.machine.state is State.LIVE else None


def run(core: str, blocks: int, per: int, rate: float) -> dict[str, float]:
    """Follow one publisher and return the figures."""
    command = [sys.executable, __file__, "--publish", str(blocks), str(per), str(rate)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    endpoint = f"tcp://127.0.0.1:{int(child.stdout.readline())}"
    ingest = Ingest(make_core(core), sockets=SocketSettings(receive_hwm=0))  # type: ignore[arg-type]
    ingest.start()
    try:
        ingest.add(PublisherSpec(name="p", model="m", endpoint=endpoint))
        link = wait_until("the publisher is live", lambda: live_link(ingest), deadline_s=60)
        child.stdout.readline()  # subscribed
        cpu, begun = time.process_time(), time.perf_counter()
        child.stdin.write("go\n")
        child.stdin.flush()
        batches = blocks // per
        with contextlib.suppress(DeadlineError):  # lost batches are counted below
            wait_until("all batches applied", lambda: link.totals.batches >= batches, deadline_s=120, every_s=0.002)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        done = link.totals.batches
        figures = {
            "blocks_per_s": done * per / wall,
            "blocks_per_cpu_s": done * per / cpu,
            "us_per_batch_cpu": 1e6 * cpu / max(1, done),
            "missing_batches": float(batches - done),
            "gaps": float(link.machine.counters.gaps),
            "publisher_s": float(child.stdout.readline()),
        }
        if rate:
            figures["visible_p50_ms"] = 1e3 * ingest.shared.meter.visible.quantile(0.50)
            figures["visible_p99_ms"] = 1e3 * ingest.shared.meter.visible.quantile(0.99)
        return figures
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            pipe.close()
        ingest.stop()


class Bare:
    """A bare pyzmq receiver, which neither decodes nor hashes nor keeps anything."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint)

    def receive(self, batches: int) -> list[float]:
        """Return the seconds from the creation of each batch to its arrival."""
        socket, late = self._socket, []
        while len(late) < batches:
            socket.recv()
            socket.recv()
            payload = socket.recv()
            late.append(time.time() - _TS.unpack_from(payload, 2)[0])
        return late

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)


def run_bare(blocks: int, per: int, rate: float) -> dict[str, float]:
    """Receive one publisher with a bare receiver and return the figures."""
    command = [sys.executable, __file__, "--publish", str(blocks), str(per), str(rate)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    receiver = Bare(f"tcp://127.0.0.1:{int(child.stdout.readline())}")
    try:
        child.stdout.readline()  # subscribed
        cpu, begun = time.process_time(), time.perf_counter()
        child.stdin.write("go\n")
        child.stdin.flush()
        late = receiver.receive(blocks // per)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        figures = {"blocks_per_s": blocks / wall, "blocks_per_cpu_s": blocks / cpu}
        if rate:
            figures["arrival_p50_ms"] = 1e3 * percentile(late, 50)
            figures["arrival_p99_ms"] = 1e3 * percentile(late, 99)
        return figures
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            pipe.close()
        receiver.close()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}


def measure_alternately(
    core: str, blocks: int, per: int, rate: float, rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure the index and the bare receiver alternately, so that other load affects both."""
    pairs = [(run(core, blocks, per, rate), run_bare(blocks, per, rate)) for _ in range(rounds)]
    return medians([index for index, _ in pairs]), medians([bare for _, bare in pairs])


def main() -> int:
    """Measure and print; return 1 if a batch was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", default="auto")
    parser.add_argument("--blocks", type=int, default=1 << 20)
    parser.add_argument("--per", type=int, nargs="+", default=[32, 512])
    parser.add_argument("--rate", type=float, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--publish", nargs=3, metavar=("BLOCKS", "PER", "RATE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        publish(int(options.publish[0]), int(options.publish[1]), float(options.publish[2]))
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    results: dict[str, dict[str, float]] = {}
    bare: dict[str, dict[str, float]] = {}
    for per in options.per:
        name = f"flat_out_{per}"
        results[name], bare[name] = measure_alternately(options.core, options.blocks, per, 0.0, options.rounds)
    count = int(options.rate * options.seconds)
    if count:
        name = f"at_{options.rate:g}_per_s"
        results[name], bare[name] = measure_alternately(options.core, count, 1, options.rate, options.rounds)
    print(json.dumps({"core": make_core(options.core).name, "results": results, "bare": bare}, indent=2))
    return int(any(each["missing_batches"] or each["gaps"] for each in results.values()))


if __name__ == "__main__":
    sys.exit(main())
