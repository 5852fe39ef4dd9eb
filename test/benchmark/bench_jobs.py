"""The jobs the gate times: small, seeded, single-threaded, each a fraction of a second.

    python bench_jobs.py JOB      prints {"job", "cost", "unit"}: the least CPU time of some repeats, by unit of work

The gate runs the *same* job file with the interpreter of either side, so that base and head do the same work with their
own packages. The cost is CPU time, not wall time: on a shared machine the wall clock measures the neighbours. A planted
slowdown (`KVSYNC_BENCH_PLANT=0.2`) spends that share of each repeat again, and is how the gate itself is tested.
"""

import json
import os
import random
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from kvsync_events import BlockRemoved, BlockStored, EventBatch, WireForm, decode_batch, encode_batch

BLOCK_SIZE = 16
REPEATS = 3
FIDELITY_DATA = Path(__file__).resolve().parent.parent / "fidelity" / "data"
FORM = WireForm.for_version("0.33.0")

Work = Callable[[], int]
JOBS: dict[str, tuple[str, Callable[[], Callable[[], Work]]]] = {}


def job(name: str, unit: str) -> Callable[[Callable[[], Callable[[], Work]]], Callable[[], Callable[[], Work]]]:
    """Register a job: a function that prepares once and returns what makes one repeat's work (not timed)."""

    def register(prepare: Callable[[], Callable[[], Work]]) -> Callable[[], Callable[[], Work]]:
        JOBS[name] = (unit, prepare)
        return prepare

    return register


def stored_payloads(blocks: int, per_event: int, seed: int = 1) -> list[bytes]:
    """Batches of one event each that store `blocks` distinct blocks in chains of `per_event`."""
    rng = random.Random(seed)
    payloads = []
    for first in range(0, blocks, per_event):
        hashes = [rng.getrandbits(64) for _ in range(per_event)]
        tokens = [65_536 + rng.randrange(60_000) for _ in range(per_event * BLOCK_SIZE)]
        event = BlockStored(hashes, None, tokens, BLOCK_SIZE, medium="GPU")
        payloads.append(encode_batch(EventBatch(float(first), [event], 0), FORM))
    return payloads


def ingest(blocks: int, per_event: int) -> Callable[[], Work]:
    from kvsync_indexer.core import make_core

    payloads = stored_payloads(blocks, per_event)

    def repeat() -> Work:
        core = make_core()
        core.add_publisher("pod", "model")
        apply = core.apply

        def work() -> int:
            for payload in payloads:
                apply("pod", payload)
            return blocks

        return work

    return repeat


@job("index_ingest_1", "s/block")
def ingest_1() -> Callable[[], Work]:
    return ingest(20_000, 1)


@job("index_ingest_32", "s/block")
def ingest_32() -> Callable[[], Work]:
    return ingest(64_000, 32)


@job("index_ingest_512", "s/block")
def ingest_512() -> Callable[[], Work]:
    return ingest(102_400, 512)


@job("index_removal", "s/block")
def removal() -> Callable[[], Work]:
    from kvsync_indexer.core import make_core

    payloads = stored_payloads(20_480, 32)
    hashes = [block for payload in payloads for block in decode_batch(payload).events[0].block_hashes]
    removals = [encode_batch(EventBatch(0.0, [BlockRemoved([block], medium="GPU")], 0), FORM) for block in hashes]

    def repeat() -> Work:
        core = make_core()
        core.add_publisher("pod", "model")
        for payload in payloads:
            core.apply("pod", payload)

        def work() -> int:
            for payload in removals:
                core.apply("pod", payload)
            return len(removals)

        return work

    return repeat


def lookup(publishers: int, blocks: int, hit: bool) -> Callable[[], Work]:
    from kvsync_indexer.core import Context, make_core

    core = make_core()
    payload = stored_payloads(blocks, blocks)[0]
    for index in range(publishers):
        core.add_publisher(f"pod-{index}", "model")
        core.apply(f"pod-{index}", payload)
    tokens = array("I", decode_batch(payload).events[0].token_ids)
    if not hit:
        tokens = array("I", [token + 1 for token in tokens])
    context, times = Context("model"), 200

    def work() -> int:
        for _ in range(times):
            core.match(context, tokens)
        return times

    return lambda: work


@job("index_match_512_blocks_64_publishers", "s/query")
def match_64() -> Callable[[], Work]:
    return lookup(64, 512, hit=True)


@job("index_match_512_blocks_1_publisher", "s/query")
def match_1() -> Callable[[], Work]:
    return lookup(1, 512, hit=True)


@job("index_miss", "s/query")
def miss() -> Callable[[], Work]:
    return lookup(64, 512, hit=False)


@job("events_decode_32", "s/block")
def decode() -> Callable[[], Work]:
    payloads = stored_payloads(12_800, 32)

    def work() -> int:
        for payload in payloads:
            decode_batch(payload)
        return 12_800

    return lambda: work


@job("events_hash_sha256_cbor", "s/block")
def hash_blocks() -> Callable[[], Work]:
    from kvsync_events import BlockHasher

    hasher = BlockHasher("sha256_cbor", "0")
    tokens = [65_536 + i for i in range(BLOCK_SIZE)]

    def work() -> int:
        parent = hasher.none_hash
        for _ in range(20_000):
            parent = hasher.hash_block(parent, tokens)
        return 20_000

    return lambda: work


@job("engine_steps", "s/step")
def engine_steps() -> Callable[[], Work]:
    """A scenario of the fidelity oracle: 300 requests of the conversation trace through the mock engine."""
    from kvsync_mockpod.scripted import load_scenario
    from kvsync_mockpod.steps import play

    scenario = load_scenario(FIDELITY_DATA / "13_mooncake300.jsonl.gz")

    def repeat() -> Work:
        return lambda: sum(1 for _ in play(scenario))

    return repeat


def measure(name: str) -> dict[str, object]:
    """Prepare, repeat, and give the least cost of a unit of work."""
    unit, prepare = JOBS[name]
    plant = float(os.environ.get("KVSYNC_BENCH_PLANT", "0"))
    repeat = prepare()
    costs = []
    for _ in range(REPEATS):
        work = repeat()
        started = time.process_time()
        units = work()
        spent = time.process_time() - started
        until = time.process_time() + plant * spent
        while time.process_time() < until:
            pass
        costs.append((time.process_time() - started) / units)
    return {"job": name, "cost": min(costs), "unit": unit}


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in JOBS:
        sys.exit(f"JOB: {' '.join(sys.argv[1:]) or 'missing'}; one of {', '.join(JOBS)}")
    print(json.dumps(measure(sys.argv[1])))
