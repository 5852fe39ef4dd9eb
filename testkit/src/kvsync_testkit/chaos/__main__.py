"""`python -m kvsync_testkit.chaos`: run faults on a backend, and write report.json, report.html and the histories."""

import argparse
import itertools
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from kvsync_testkit.chaos.backend import Backend
from kvsync_testkit.chaos.faults import Fault, choose_faults
from kvsync_testkit.chaos.page import write_page
from kvsync_testkit.chaos.report import as_document, failed, summary, write_json
from kvsync_testkit.chaos.runner import run_fault
from kvsync_testkit.chaos.selecting import make_backend


def main(arguments: list[str] | None = None) -> int:
    """Run the faults and return 0 if none failed and at least one passed, 1 otherwise, 2 for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m kvsync_testkit.chaos", description=__doc__)
    parser.add_argument("--backend", choices=("auto", "local", "kubernetes", "chaos-mesh"), default="auto")
    parser.add_argument("--faults", default="all", help="names, network, pods, events, smoke or all; comma-separated")
    parser.add_argument("--out", type=Path, default=Path("out/chaos"))
    parser.add_argument("--experiments", type=Path, default=Path("test/chaos/experiments"))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("KVSYNC_CHAOS_SEED", "0")))
    parser.add_argument("--minutes", type=float, help="inject random ones of the faults, one at a time, for so long")
    options = parser.parse_args(arguments)
    if options.minutes is not None and options.backend == "chaos-mesh":
        parser.error("--minutes: an experiment of Chaos Mesh has one name and runs once")
    try:
        faults = choose_faults(options.faults)
    except ValueError as error:
        parser.error(str(error))
    backend: Backend = make_backend(options.backend, options.out, options.experiments)
    if backend.name == "local":
        faults = [one for one in faults if not one.cluster_only or one.name in options.faults.split(",")]
    _say(f"chaos: backend {backend.name}, {len(faults)} faults, seed {options.seed}")
    reports = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a cancelled run cleans up
    try:
        chosen = faults if options.minutes is None else at_random(faults, options.seed, options.minutes)
        for fault in chosen:
            report = run_fault(backend, fault, options.out, options.seed)
            _say(summary([report]))
            reports.append(report)
    finally:
        backend.stop()
        document = as_document(reports, backend.name, options.seed, getattr(backend, "note", ""))
        write_json(document, options.out / "report.json")
        write_page(document, options.out / "report.html")
    _say(f"\n{document['verdict']}: {document['counts']}; {options.out / 'report.html'}")
    return int(failed(reports))


def at_random(faults: Sequence[Fault], seed: int, minutes: float) -> Iterator[Fault]:
    """Yield faults that the seed chooses, numbered in their names, until the time is over.

    The system stays up where two faults need the same one, and every fault ends with a comparison of all tables.
    """
    end, chance = time.monotonic() + 60.0 * minutes, random.Random(seed)
    for number in itertools.count(1):
        if time.monotonic() >= end:
            return
        fault = chance.choice(faults)
        yield replace(fault, name=f"{fault.name}#{number}")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
