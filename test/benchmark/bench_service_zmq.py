"""ZMQ socket to visible: the whole ingest (sockets, state machine, core) with the publisher in another process.

    python bench_service_zmq.py [--core auto] [--blocks 1048576] [--per 32 512] [--rate 10000] [--seconds 5]

Prints JSON: blocks/s for each size (wall time from the first batch's arrival to the last one's being visible, and CPU
time of this process), gaps (any is a failure), and p50/p99 of event-to-visible at a fixed rate of one-block batches;
under `bare` the same of a receiver that only takes the messages, in turns with it. On a shared machine read the CPU
time and the distance from `bare`: the wall clock measures the neighbours.
"""

import argparse
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
from kvsync_indexer.ingest import Ingest, SocketSettings
from kvsync_indexer.publishers import PublisherSpec
from kvsync_indexer.sync import State

BLOCK_SIZE = 16
_TS = struct.Struct(">d")
FORM = WireForm.for_version("0.33.0")


def payload_of(rng: random.Random, blocks: int, ts: float) -> bytes:
    """One batch that stores a chain of `blocks` new blocks."""
    hashes = [rng.getrandbits(64) for _ in range(blocks)]
    tokens = [65_536 + rng.randrange(60_000) for _ in range(blocks * BLOCK_SIZE)]
    return encode_batch(EventBatch(ts, [BlockStored(hashes, None, tokens, BLOCK_SIZE, medium="GPU")], 0), FORM)


def publish(blocks: int, per: int, rate: float) -> None:
    """Child process: bind, print the port, wait for a line, send everything (at `rate` a second; 0: flat out)."""
    rng = random.Random(per)
    payloads = [payload_of(rng, per, time.time()) for _ in range(blocks // per)]
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    print(socket.bind_to_random_port("tcp://127.0.0.1"), flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    for seq, payload in enumerate(payloads):
        if rate:
            while time.perf_counter() < begun + seq / rate:
                time.sleep(0.0002)
            # the batch's time is its first float: write now into it
            payload = payload[:2] + _TS.pack(time.time()) + payload[10:]
        socket.send_multipart([b"", encode_seq(seq), payload])
    print(time.perf_counter() - begun, flush=True)
    sys.stdin.readline()
    context.destroy(linger=0)


def run(core: str, blocks: int, per: int, rate: float) -> dict[str, float]:
    """One publisher from start to end; figures of it."""
    command = [sys.executable, __file__, "--publish", str(blocks), str(per), str(rate)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    endpoint = f"tcp://127.0.0.1:{int(child.stdout.readline())}"
    ingest = Ingest(make_core(core), sockets=SocketSettings(receive_hwm=0))  # type: ignore[arg-type]
    ingest.start()
    try:
        ingest.add(PublisherSpec(name="p", model="m", endpoint=endpoint))
        while (link := ingest.link("p")) is None or link.machine.state is not State.LIVE:
            time.sleep(0.01)
        time.sleep(0.2)
        cpu, begun = time.process_time(), time.perf_counter()
        child.stdin.write("go\n")
        child.stdin.flush()
        batches = blocks // per
        while link.totals.batches < batches and time.perf_counter() < begun + 120:
            time.sleep(0.002)
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
    """What a bare pyzmq receiver makes of the same publisher: nothing is decoded, hashed or kept."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        self._socket.connect(endpoint)

    def receive(self, batches: int) -> list[float]:
        """Seconds from the making of each batch to its arrival."""
        socket, late = self._socket, []
        while len(late) < batches:
            socket.recv()
            socket.recv()
            payload = socket.recv()
            late.append(time.time() - _TS.unpack_from(payload, 2)[0])
        return late

    def close(self) -> None:
        """Close it."""
        self._context.destroy(linger=0)


def run_bare(blocks: int, per: int, rate: float) -> dict[str, float]:
    """One publisher from start to end into a bare receiver."""
    command = [sys.executable, __file__, "--publish", str(blocks), str(per), str(rate)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    receiver = Bare(f"tcp://127.0.0.1:{int(child.stdout.readline())}")
    try:
        time.sleep(0.5)  # the subscription reaches it
        cpu, begun = time.process_time(), time.perf_counter()
        child.stdin.write("go\n")
        child.stdin.flush()
        late = sorted(receiver.receive(blocks // per))
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
        figures = {"blocks_per_s": blocks / wall, "blocks_per_cpu_s": blocks / cpu}
        if rate:
            figures["arrival_p50_ms"] = 1e3 * late[len(late) // 2]
            figures["arrival_p99_ms"] = 1e3 * late[int(0.99 * len(late))]
        return figures
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            pipe.close()
        receiver.close()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure."""
    return {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}


def in_turns(core: str, blocks: int, per: int, rate: float, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """The index and the bare receiver one after the other, so that both see the same neighbours."""
    pairs = [(run(core, blocks, per, rate), run_bare(blocks, per, rate)) for _ in range(rounds)]
    return medians([index for index, _ in pairs]), medians([bare for _, bare in pairs])


def main() -> int:
    """Measure and print; 1 when a batch was lost."""
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
        results[name], bare[name] = in_turns(options.core, options.blocks, per, 0.0, options.rounds)
    count = int(options.rate * options.seconds)
    if count:
        name = f"at_{options.rate:g}_per_s"
        results[name], bare[name] = in_turns(options.core, count, 1, options.rate, options.rounds)
    print(json.dumps({"core": make_core(options.core).name, "results": results, "bare": bare}, indent=2))
    return int(any(each["missing_batches"] or each["gaps"] for each in results.values()))


if __name__ == "__main__":
    sys.exit(main())
