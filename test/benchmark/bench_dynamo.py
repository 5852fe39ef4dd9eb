"""Our index core beside NVIDIA Dynamo's radix tree (`ai-dynamo-runtime`, Apache-2.0), in one run, when it is installed.

    python bench_dynamo.py [--peer-python PYTHON] [--rounds 7]

`--peer-python` names an interpreter that has the wheel (an environment of its own: `pip install ai-dynamo-runtime`); by
default the one that runs this. Each side is a subprocess, the sides alternate, the figure is the median of wall times
(both sides work in threads of their own). What is compared, Python-visible on both sides:

- lookup: a 512-block prompt (8,192 tokens above 65,535) held by 64 publishers, from its tokens. Dynamo's two calls,
  hash and find, are timed together; from keys alone is shown too (ours hashes inside the call and has no such entry).
- ingest: events into the index, from bytes on both sides: Dynamo's own JSON event, the publisher's msgpack for ours.

Without the wheel it says so and exits 0: nothing was compared.
"""

import json
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path

BLOCK_SIZE, BLOCKS, PUBLISHERS, LOOKUPS, INGEST_BLOCKS = 16, 512, 64, 300, 65_536
TOKENS = list(range(65_536, 65_536 + BLOCKS * BLOCK_SIZE))


def seconds(work: Callable[[], object], times: int) -> float:
    """Mean wall time of one call."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - started) / times


def measure_peer() -> dict[str, float]:
    """Dynamo's radix tree."""
    from dynamo._core import RadixTree, compute_block_hash_for_seq  # type: ignore[import-not-found]

    def event(hashes: list[int]) -> bytes:
        blocks = [{"block_hash": block, "tokens_hash": block} for block in hashes]
        return json.dumps({"event_id": 1, "data": {"stored": {"parent_hash": None, "blocks": blocks}}}).encode()

    tree, keys = RadixTree(), compute_block_hash_for_seq(TOKENS, BLOCK_SIZE)
    for worker in range(PUBLISHERS):
        tree.apply_event(worker, event(keys))
    found = tree.find_matches(keys).scores
    assert len(found) == PUBLISHERS, "the peer does not find what was stored"
    assert set(found.values()) == {BLOCKS}
    result = {
        "lookup from keys": seconds(lambda: tree.find_matches(keys), LOOKUPS),
        "lookup from tokens": seconds(
            lambda: tree.find_matches(compute_block_hash_for_seq(TOKENS, BLOCK_SIZE)), LOOKUPS
        ),
    }
    for size in (1, 32, 512):
        events = [event(list(range(first + 1, first + size + 1))) for first in range(0, INGEST_BLOCKS, size)]
        fresh = RadixTree()
        started = time.perf_counter()
        for payload in events:
            fresh.apply_event(0, payload)
        fresh.find_matches([1])  # events go to a thread: the answer comes after them
        result[f"ingest a block, {size} an event"] = (time.perf_counter() - started) / INGEST_BLOCKS
    return result


def measure_ours() -> dict[str, float]:
    """The index core that `make_core` chooses here."""
    from bench_jobs import stored_payloads

    from kvsync_events import BlockStored, EventBatch, WireForm, encode_batch
    from kvsync_indexer.core import Context, make_core

    form, context, tokens = WireForm.for_version("0.33.0"), Context("model"), array("I", TOKENS)
    core = make_core()
    stored = BlockStored(list(range(1, BLOCKS + 1)), None, TOKENS, BLOCK_SIZE, medium="GPU")
    for index in range(PUBLISHERS):
        core.add_publisher(f"pod-{index}", "model")
        core.apply(f"pod-{index}", encode_batch(EventBatch(0.0, [stored], 0), form))
    found = core.match(context, tokens)
    assert len(found) == PUBLISHERS
    assert {match.blocks for match in found} == {BLOCKS}
    result = {"lookup from tokens": seconds(lambda: core.match(context, tokens), LOOKUPS)}
    for size in (1, 32, 512):
        payloads = stored_payloads(INGEST_BLOCKS, size)
        fresh = make_core()
        fresh.add_publisher("pod", "model")
        started = time.perf_counter()
        for payload in payloads:
            fresh.apply("pod", payload)
        result[f"ingest a block, {size} an event"] = (time.perf_counter() - started) / INGEST_BLOCKS
    return result


def run(python: str, side: str) -> dict[str, float] | None:
    """One side's figures in seconds, or None where its packages are missing."""
    done = subprocess.run([python, __file__, side], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        if "No module named 'dynamo" in last:
            return None
        sys.exit(f"{side} with {python}: {last}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main(peer_python: str, rounds: int) -> None:
    """Alternate the sides, print medians and ratios, write `out/benchmark/dynamo.json`."""
    from rich.console import Console
    from rich.table import Table

    from kvsync_indexer.core import make_core

    samples: dict[str, list[dict[str, float]]] = {"peer": [], "ours": []}
    for _ in range(rounds):
        peer = run(peer_python, "peer")
        if peer is None:
            print("ai-dynamo-runtime is not installed: nothing was compared (see --peer-python)")
            return
        samples["peer"].append(peer)
        ours = run(sys.executable, "ours")
        assert ours is not None
        samples["ours"].append(ours)
    names = list(samples["peer"][0])
    medians = {
        side: {name: statistics.median(r[name] for r in rounds_ if name in r) for name in names if name in rounds_[0]}
        for side, rounds_ in samples.items()
    }
    table = Table(title=f"median of {rounds}, microseconds; our core: {make_core().name}")
    for column in ("figure", "Dynamo", "kvsync", "Dynamo / kvsync"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for name in names:
        peer_s, ours_s = medians["peer"][name], medians["ours"].get(name)
        cells = [f"{ours_s * 1e6:.3g}", f"{peer_s / ours_s:.2f}"] if ours_s else ["–", "–"]
        table.add_row(name, f"{peer_s * 1e6:.3g}", *cells)
    Console().print(table)
    out = Path(__file__).resolve().parents[2] / "out/benchmark"
    out.mkdir(parents=True, exist_ok=True)
    (out / "dynamo.json").write_text(json.dumps({"medians_s": medians, "samples_s": samples}, indent=2))


if __name__ == "__main__":
    if sys.argv[1:] in (["peer"], ["ours"]):
        print(json.dumps(measure_peer() if sys.argv[1] == "peer" else measure_ours()))
    else:
        import argparse

        parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
        parser.add_argument("--peer-python", default=sys.executable)
        parser.add_argument("--rounds", type=int, default=7)
        options = parser.parse_args()
        main(options.peer_python, options.rounds)
