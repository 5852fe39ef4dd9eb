"""Measures how long one publisher's payloads can keep a query for another publisher waiting.

    bench_stalls.py [--core native] [--blocks 262144]

Each case prints the time that the work took and the longest match meanwhile. On a machine with other load, both include
the time in which the process was not running.
"""

import argparse
import random
import sys
import threading
import time

from kvsync_events import AllBlocksCleared, BlockRemoved, BlockStored, EventBatch, WireForm, encode_batch
from kvsync_indexer.core import Context, CoreLimits, make_core

FORM = WireForm.for_version("0.33.0")
PROMPT = list(range(32))


def payload(*events):
    return encode_batch(EventBatch(1.0, list(events), 0), FORM)


def chain(hashes, parent=None, token=1):
    return BlockStored(hashes, parent, [token] * len(hashes), 1)


def random_hashes(count, seed):
    rng = random.Random(seed)
    return [rng.getrandbits(64) for _ in range(count)]


def cases(blocks):
    """Name, payloads that prepare the publisher, and the work to measure."""
    hashes = random_hashes(blocks, 1)
    much = [payload(chain(random_hashes(blocks, 10 + at), token=at)) for at in range(8)]

    def apply(*events):
        data = payload(*events)
        return lambda core: core.apply("bad", data)

    chains = [chain(random_hashes(blocks, 20 + at), token=at) for at in range(4)]
    waiting = payload(chain(hashes, parent=5))
    yield "store a chain", [], apply(chain(hashes))
    yield "store four chains in one payload", [], apply(*chains)
    yield "store waiting blocks", [], apply(chain(hashes, parent=5))
    yield "attach waiting blocks", [waiting], apply(BlockStored([5], None, [9], 1))
    yield "remove one by one", [payload(chain(hashes))], apply(*(BlockRemoved([one]) for one in hashes[:65_536]))
    yield "remove in one event", [payload(chain(hashes))], apply(BlockRemoved(hashes))
    yield "store hashes only", [], apply(BlockStored(hashes, None, [], 0))
    yield "clear", much, apply(AllBlocksCleared())
    yield "remove the publisher", much, lambda core: core.remove_publisher("bad")
    yield "snapshot", much, lambda core: core.snapshot()
    yield "dump", much, lambda core: core.dump("bad")


def measure(kind, prepared, work):
    """Seconds that the work took, and those of the longest match for another publisher meanwhile."""
    core = make_core(kind, CoreLimits())
    for name in ("good", "bad"):
        core.add_publisher(name, "m")
    core.apply("good", payload(BlockStored([1, 2], None, PROMPT, 16)))
    for data in prepared:
        core.apply("bad", data)
    took, longest, done = [], 0.0, threading.Event()

    def run():
        begun = time.perf_counter()
        work(core)
        took.append(time.perf_counter() - begun)
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    while not done.is_set():
        begun = time.perf_counter()
        core.match(Context("m"), PROMPT, ["good"])
        longest = max(longest, time.perf_counter() - begun)
        time.sleep(0)
    thread.join()
    return took[0], longest


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", default="native", choices=("native", "python"))
    parser.add_argument("--blocks", type=int, default=262_144, help="blocks per event")
    args = parser.parse_args()
    sys.setswitchinterval(0.001)
    for name, prepared, work in cases(args.blocks):
        took, longest = measure(args.core, prepared, work)
        print(f"{args.core}: {name}: {took * 1e3:.1f} ms of work, longest match {longest * 1e3:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
