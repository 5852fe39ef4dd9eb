"""Measures kvsync beside the released wheel of NVIDIA Dynamo (`ai-dynamo-runtime`, Apache-2.0), if it is installed.

    python bench_dynamo.py [--peer-python PYTHON] [--core auto] [--rounds 5] [--json FILE]

`--peer-python` (or KVSYNC_DYNAMO_PYTHON) names an interpreter with the wheel, which needs an environment of its own
(`pip install ai-dynamo-runtime`). The default is the interpreter that runs this script. The two sides run alternately,
and each figure is the median of its rounds.

- Index: a prompt of 512 blocks (8,192 tokens) that 64 publishers hold, looked up from its tokens and from its keys
  through the Python interface. Each side runs in its own process, and CPU time covers all threads.
- Event bytes: Dynamo's Python interface takes JSON with prepared hashes and without tokens. kvsync takes the msgpack of
  the publisher with all token ids and hashes them, and therefore does more work.
- Service: the stand-alone indexer of each side, fed by the same sockets and queried over HTTP
  (`bench_dynamo_service`). Both do the same work.

Without the wheel the script says so and exits 0.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

BLOCK_SIZE, BLOCKS, PUBLISHERS, LOOKUPS, INGEST_BLOCKS = 16, 512, 64, 300, 65_536
TOKENS = list(range(65_536, 65_536 + BLOCKS * BLOCK_SIZE))
SERVICE_BLOCKS = 1 << 19
ROWS = {
    "lookup_keys": ("index: 512 blocks held by 64, from keys", "µs", "cpu", False),
    "lookup_tokens": ("index: 512 blocks held by 64, from tokens", "µs", "cpu", False),
    "apply_1": ("index: event bytes, 1 block per event (Dynamo's without tokens)", "µs per block", "cpu", False),
    "apply_32": ("index: event bytes, 32 blocks per event (Dynamo's without tokens)", "µs per block", "cpu", False),
    "apply_512": ("index: event bytes, 512 blocks per event (Dynamo's without tokens)", "µs per block", "cpu", False),
    "ingest_32_cpu": ("service: ZMQ to visible, 32 per message", "M blocks/CPU s", "cpu", True),
    "ingest_512_cpu": ("service: ZMQ to visible, 512 per message", "M blocks/CPU s", "cpu", True),
    "ingest_32_wall": ("service: ZMQ to visible, 32 per message, wall", "M blocks/s", "wall", True),
    "ingest_512_wall": ("service: ZMQ to visible, 512 per message, wall", "M blocks/s", "wall", True),
    "query_cpu": ("service: HTTP query of 8,192 tokens, 64 publishers", "µs CPU", "cpu", False),
    "query_median": ("service: HTTP query of 8,192 tokens, 64 publishers, median", "µs", "wall", False),
}


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Return the mean CPU time of one call in microseconds, over all threads."""
    work()
    started = time.process_time()
    for _ in range(times):
        work()
    return 1e6 * (time.process_time() - started) / times


def measure_peer() -> dict[str, float]:
    """Measure Dynamo's radix tree."""
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
        "lookup_keys": cpu_us(lambda: tree.find_matches(keys), LOOKUPS),
        "lookup_tokens": cpu_us(lambda: tree.find_matches(compute_block_hash_for_seq(TOKENS, BLOCK_SIZE)), LOOKUPS),
    }
    for size in (1, 32, 512):
        events = [event(list(range(first + 1, first + size + 1))) for first in range(0, INGEST_BLOCKS, size)]
        fresh = RadixTree()
        started = time.process_time()
        for payload in events:
            fresh.apply_event(0, payload)
        fresh.find_matches([1])  # a thread applies the events, and answers after the last one
        result[f"apply_{size}"] = 1e6 * (time.process_time() - started) / INGEST_BLOCKS
    return result


def measure_ours(core_kind: str) -> dict[str, float]:
    """Measure the index core of kvsync."""
    from bench_payloads import encode_stored, stored_payloads

    from kvsync_indexer.core import Context, make_core

    context, tokens = Context("model"), array("I", TOKENS)
    core = make_core(core_kind)  # type: ignore[arg-type]
    for index in range(PUBLISHERS):
        core.add_publisher(f"pod-{index}", "model")
        core.apply(f"pod-{index}", encode_stored(list(range(1, BLOCKS + 1)), TOKENS))
    found = core.match(context, tokens)
    assert len(found) == PUBLISHERS
    assert {match.blocks for match in found} == {BLOCKS}
    keys = core.query_keys(context, tokens, BLOCK_SIZE)
    result = {
        "lookup_keys": cpu_us(lambda: core.match_keys("model", BLOCK_SIZE, keys), LOOKUPS),
        "lookup_tokens": cpu_us(lambda: core.match(context, tokens), LOOKUPS),
    }
    for size in (1, 32, 512):
        payloads = stored_payloads(INGEST_BLOCKS, size)
        fresh = make_core(core_kind)  # type: ignore[arg-type]
        fresh.add_publisher("pod", "model")
        started = time.process_time()
        for payload in payloads:
            fresh.apply("pod", payload)
        result[f"apply_{size}"] = 1e6 * (time.process_time() - started) / INGEST_BLOCKS
    return result


def run_index(python: str, side: str, core: str) -> dict[str, float]:
    """Return the index figures of one side, measured in a process of its own."""
    done = subprocess.run(
        [python, __file__, "--side", side, "--core", core], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        sys.exit(f"{side} with {python}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def read_version(python: str) -> str:
    """Return the version of the wheel, or "" if it cannot be imported."""
    program = "import dynamo._core, importlib.metadata as m; print(m.version('ai-dynamo-runtime'))"
    try:
        done = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    except OSError as error:
        sys.exit(f"--peer-python {python}: {error.strerror}")
    return done.stdout.strip() if done.returncode == 0 else ""


def compare(python: str, core: str, rounds: int) -> dict[str, Any]:
    """Return the comparison, or the reason why it was left out."""
    version = read_version(python)
    if not version:
        return {"left_out": "ai-dynamo-runtime is not installed (--peer-python, KVSYNC_DYNAMO_PYTHON)"}
    from bench_dynamo_service import measure_service

    samples: dict[str, list[dict[str, float]]] = {"dynamo": [], "kvsync": []}
    for number in range(rounds):
        for side in ("dynamo", "kvsync") if number % 2 else ("kvsync", "dynamo"):
            index = run_index(python if side == "dynamo" else sys.executable, side, core)
            samples[side].append(index | measure_service(side, python, core, SERVICE_BLOCKS))
    rows = []
    for key, (name, unit, clock, more) in ROWS.items():
        row = {side: statistics.median(one[key] for one in found) for side, found in samples.items()}
        rows.append({"name": name, "unit": unit, "clock": clock, "more_is_better": more, **row})
    return {"version": version, "rounds": rounds, "rows": rows, "samples": samples}


def show(document: dict[str, Any]) -> None:
    """Print the result."""
    from rich.console import Console
    from rich.table import Table

    if "left_out" in document:
        print(f"{document['left_out']}: nothing was compared")
        return
    table = Table(title=f"median of {document['rounds']}")
    for column in ("figure", f"Dynamo {document['version']}", "kvsync", "unit", "kvsync / Dynamo"):
        table.add_column(column, justify="left" if column in ("figure", "unit") else "right")
    for row in document["rows"]:
        ratio = row["kvsync"] / row["dynamo"]
        table.add_row(row["name"], f"{row['dynamo']:.3g}", f"{row['kvsync']:.3g}", row["unit"], f"{ratio:.2f}")
    Console().print(table)


def main() -> None:
    """Compare both sides, and print or write the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", default=os.environ.get("KVSYNC_DYNAMO_PYTHON", sys.executable))
    parser.add_argument("--core", default="auto")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="a file, or - for standard output without a table")
    parser.add_argument("--side", choices=["dynamo", "kvsync"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure_peer() if options.side == "dynamo" else measure_ours(options.core)))
        return
    document = compare(options.peer_python, options.core, options.rounds)
    if options.json == "-":
        print(json.dumps(document))
        return
    show(document)
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
