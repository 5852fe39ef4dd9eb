"""Measures the index core in one run: ingest, removal, lookup, memory, number of publishers and churn.

    python test/benchmark/bench_index_core.py [--core native|python] [--quick] [--out out/bench/index-core.json]

Every time is processor time of this thread, because the wall clock of a shared machine measures other processes too.
It is the least of several rounds. Ingest runs alternately with the bare loop of `native/src/reference.rs` (the same
decoder and two hash maps, nothing else) over the same payloads, so that the ratio of both holds on any machine.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import msgpack

from kvsync_indexer.core import Context, IndexCore, make_core

BLOCK = 16
FIRST_TOKEN = 65_536
HUGE_PAGES = "glibc.malloc.hugetlb=1"
"""The setting of the index's image. It takes effect where the kernel offers transparent huge pages."""


def cpu(work: Callable[[], object]) -> float:
    start = time.thread_time()
    work()
    return time.thread_time() - start


def least(work: Callable[[], float], rounds: int) -> float:
    return min(work() for _ in range(rounds))


def chain_events(blocks: int, per_event: int, seed: int) -> list[dict]:
    """Events that start chains of `per_event` blocks, with random hashes and token ids over 65,535."""
    rng = random.Random(seed)
    return [
        {
            "type": "BlockStored",
            "block_hashes": [rng.getrandbits(64) for _ in range(per_event)],
            "parent_block_hash": None,
            "token_ids": [FIRST_TOKEN + rng.randrange(60_000) for _ in range(per_event * BLOCK)],
            "block_size": BLOCK,
            "lora_id": None,
            "medium": "GPU",
            "lora_name": None,
        }
        for _ in range(blocks // per_event)
    ]


def batches(events: list[dict] | list[list], per_batch: int = 1) -> list[bytes]:
    return [msgpack.packb([1.5, events[at : at + per_batch], 0]) for at in range(0, len(events), per_batch)]


def as_arrays(events: list[dict]) -> list[list]:
    """The array form, which vLLM up to 0.23 sends."""
    return [[event["type"], *(event[name] for name in event if name != "type")] for event in events]


def fresh(kind: str, *names: str) -> IndexCore:
    core = make_core(kind)
    for name in names or ("p",):
        core.add_publisher(name, "m")
    return core


def ingest(kind: str, blocks: int, form: str, per_event: int, per_batch: int, rounds: int) -> dict:
    """Million blocks per second through `apply` (one call per payload), `apply_many` and the bare loop, alternately."""
    events = chain_events(blocks, per_event, per_event)
    payloads = batches(as_arrays(events) if form == "array" else events, per_batch)
    best = {"apply": 1e9, "apply_many": 1e9, "reference": 1e9}
    for _ in range(rounds):
        core = fresh(kind)
        best["apply"] = min(best["apply"], cpu(lambda: [core.apply("p", data) for data in payloads]))  # noqa: B023
        assert core.stats().keys == blocks
        core = fresh(kind)
        best["apply_many"] = min(best["apply_many"], cpu(lambda: core.apply_many("p", payloads)))  # noqa: B023
        if kind == "native":
            from kvsync_native._core import reference_loop

            # The loop releases the GIL but runs in this thread, so its processor time is counted.
            best["reference"] = min(best["reference"], cpu(lambda: reference_loop(payloads)))
    rates = {name: round(blocks / value / 1e6, 3) for name, value in best.items() if value < 1e9}
    return {"form": form, "blocks_an_event": per_event, "events_a_payload": per_batch, "m_blocks_s": rates}


def in_huge_pages(quick: bool) -> list[dict]:
    """Ingest in a process whose heap uses huge pages, which saves most page faults of an index that fills."""
    command = [sys.executable, str(Path(__file__)), "--only", "ingest", *(["--quick"] if quick else [])]
    environment = os.environ | {"GLIBC_TUNABLES": HUGE_PAGES}
    return json.loads(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)["ingest"]


def removal(kind: str, blocks: int, per_event: int, rounds: int) -> dict:
    events = chain_events(blocks, 512, 9)
    store = batches(events)
    hashes = [one for event in events for one in event["block_hashes"]]
    random.Random(1).shuffle(hashes)
    remove = batches(
        [
            {"type": "BlockRemoved", "block_hashes": hashes[at : at + per_event], "medium": "GPU"}
            for at in range(0, blocks, per_event)
        ],
        max(1, 512 // per_event),
    )

    def once() -> float:
        core = fresh(kind)
        core.apply_many("p", store)
        took = cpu(lambda: core.apply_many("p", remove))
        assert core.stats().keys == 0
        return took

    return {"blocks_an_event": per_event, "m_blocks_s": round(blocks / least(once, rounds) / 1e6, 3)}


def per_call(work: Callable[[], object], calls: int, rounds: int) -> float:
    """Microseconds per call."""

    def once() -> float:
        return cpu(lambda: [work() for _ in range(calls)])

    return round(least(once, rounds) / calls * 1e6, 2)


def lookup(kind: str, held: int, length: int, publishers: int, calls: int, rounds: int) -> dict:
    """A prompt of `length` blocks that every publisher holds whole, among `held` blocks per publisher."""
    events = chain_events(held, length, 3)
    payloads = batches(events)
    names = [f"pod-{number}" for number in range(publishers)]
    core = fresh(kind, *names)
    for name in names:
        core.apply_many(name, payloads)
    tokens = array("I", events[len(events) // 2]["token_ids"])
    context = Context("m")
    keys = core.query_keys(context, tokens, BLOCK)
    other = array("I", [1]) * len(tokens)
    found = core.match(context, tokens)
    assert len(found) == publishers
    assert found[0].blocks == length
    assert not core.match(context, other)
    return {
        "blocks": length,
        "publishers": publishers,
        "blocks_held_by_each": held,
        "from_keys_us": per_call(lambda: core.match_keys("m", BLOCK, keys), calls, rounds),
        "from_tokens_us": per_call(lambda: core.match(context, tokens), calls, rounds),
        "from_tokens_every_row_read_us": per_call(lambda: list(core.match(context, tokens)), calls, rounds),
        "keys_only_us": per_call(lambda: core.query_keys(context, tokens, BLOCK), calls, rounds),
        "miss_us": per_call(lambda: core.match(context, other), calls, rounds),
    }


MEMORY = """
import ctypes, gc, json, sys
sys.path.insert(0, {here!r})
from bench_index_core import batches, chain_events, fresh

def resident():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # the freed memory of the payloads must not be used again for the index
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

kind, each, holders, pods = {kind!r}, {each}, {holders}, {pods}
names = [f"pod-{{n}}" for n in range(pods)]
sets = [batches(chain_events(each, 32, seed)) for seed in range(pods // holders)]
core = fresh(kind, *names)
core.apply("pod-0", batches(chain_events(32, 32, 10**6))[0]); core.clear_publisher("pod-0")
before = resident()
for at, name in enumerate(names):
    core.apply_many(name, sets[at // holders])
after = resident()
pairs = each * pods
stats = core.stats()
assert stats.blocks == pairs
row = {{"bytes_a_pair": (after - before) / pairs, "bytes_estimate": stats.bytes_estimate / pairs}}
print(json.dumps({{name: round(value, 1) for name, value in row.items()}}))
"""


def memory(kind: str, each: int, holders: int, pods: int) -> dict:
    """Growth of the resident set per pair of publisher and block, in a process of its own."""
    program = MEMORY.format(here=str(Path(__file__).parent), kind=kind, each=each, holders=holders, pods=pods)
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    return {"holders": holders, "publishers": pods, "blocks_held_by_each": each, **json.loads(output)}


def churn(kind: str, cycles: int) -> dict:
    """Storing and removing in a full cache of 4,096 blocks: the rate, and growth of the resident set after warm-up."""
    events = chain_events(16_384, 32, 5)
    store = batches(events)
    remove = batches(
        [{"type": "BlockRemoved", "block_hashes": event["block_hashes"], "medium": "GPU"} for event in events]
    )
    ring = [data for at in range(len(store)) for data in (store[at], remove[at - 128])]
    core = fresh(kind)
    core.apply_many("p", ring)
    core.apply_many("p", ring)
    before = _resident()
    took = cpu(lambda: [core.apply_many("p", ring) for _ in range(cycles)])
    assert core.stats().blocks == 4096
    changed = 2 * 16_384 * cycles
    return {"m_blocks_s": round(changed / took / 1e6, 3), "resident_growth_bytes": _resident() - before}


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def scaling(kind: str, counts: list[int], rounds: int) -> list[dict]:
    """Lookup and ingest by number of publishers, each with 1,024 blocks of its own and 512 that all of them hold."""
    rows = []
    shared = chain_events(512, 512, 77)
    tokens = array("I", shared[0]["token_ids"])
    context = Context("m")
    for count in counts:
        names = [f"pod-{number}" for number in range(count)]
        core = fresh(kind, *names)
        own = [batches(chain_events(1024, 32, number)) for number in range(min(count, 50))]
        common = batches(shared)[0]
        took = 0.0
        for at, name in enumerate(names):
            core.apply(name, common)
            took += cpu(lambda: core.apply_many(name, own[at % len(own)]))  # noqa: B023
        rows.append(
            {
                "publishers": count,
                "ingest_m_blocks_s": round(count * 1024 / took / 1e6, 3),
                "from_tokens_us": per_call(lambda: core.match(context, tokens), 100, rounds),  # noqa: B023
            }
        )
    return rows


def run(kind: str, quick: bool, only: str | None = None) -> dict:
    blocks = 20_480 if quick or kind == "python" else 204_800
    rounds = 3 if quick else 7
    calls = 20 if kind == "python" else 200 if quick else 1000
    shapes = [(form, *shape) for shape in ((1, 1), (1, 64), (32, 1), (512, 1)) for form in ("map", "array")]
    lengths = [(32, 4), (128, 16), (512, 1), (512, 64), (4096, 64)]
    if kind == "python":
        lengths = [(length, publishers) for length, publishers in lengths if publishers * length <= 4096]
    counts = [1, 10, 50] if quick or kind == "python" else [1, 10, 64, 200, 500]
    parts: dict[str, Callable[[], object]] = {
        "ingest": lambda: [ingest(kind, blocks, *shape, rounds) for shape in shapes],
        "ingest_huge_pages": lambda: in_huge_pages(quick) if kind == "native" else [],
        "removal": lambda: [removal(kind, blocks, per_event, rounds) for per_event in (1, 32)],
        "lookup": lambda: [
            lookup(kind, max(blocks // 8, length), length, publishers, calls, rounds) for length, publishers in lengths
        ],
        "memory": lambda: [memory(kind, each, holders, 64) for each, holders in ((3200, 1), (3200, 64))],
        "churn": lambda: churn(kind, 2 if kind == "python" else 20),
        "publishers": lambda: scaling(kind, counts, rounds),
    }
    return {
        "core": make_core(kind).name,
        "machine": {"processor": _processor(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": os.getloadavg(),
        **{name: part() for name, part in parts.items() if only in (None, name)},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--core", choices=["native", "python"], default="native")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--only", choices=["ingest", "ingest_huge_pages", "removal", "lookup", "memory", "churn"])
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    report = run(options.core, options.quick, options.only)
    text = json.dumps(report, indent=1)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
