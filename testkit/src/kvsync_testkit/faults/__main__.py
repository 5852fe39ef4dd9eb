"""`python -m kvsync_testkit.faults`: play seeds, print what fails and a summary.

Exit code 1 if anything failed, 2 on bad options.
"""

import argparse
import os
import re
import sys
import time

from kvsync_indexer.core import native_available
from kvsync_testkit.faults.campaign import CORES, CoreName, ProgressLine, Tally, play_campaign
from kvsync_testkit.faults.plan import expand_schedule
from kvsync_testkit.faults.simulation import run_schedule
from kvsync_testkit.faults.subject import REAL


def main(arguments: list[str] | None = None) -> int:
    """Parse the options and play."""
    options = _parse(arguments)
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", options.seeds)
    seeds = range(int(found[1]), int(found[2] or found[1]) + 1) if found else range(0)
    if not seeds:
        sys.stderr.write(f"error: --seeds must be N or A-B, not {options.seeds!r}\n")
        return 2
    native, why_not = native_available()
    if options.core == "native" and not native:
        sys.stderr.write(f"error: --core native: not installed ({why_not})\n")
        return 2
    if options.trace:
        core: CoreName = "native" if options.core == "native" else "python"
        sys.stdout.write(f"{run_schedule(expand_schedule(seeds[0]), REAL.on(CORES[core]))}\n")
        return 0
    cores: list[CoreName] = ["python", "native"] if options.core == "both" else [options.core]
    if "native" in cores and not native:
        sys.stdout.write(f"LEFT OUT: the native index core is not installed ({why_not})\n")
        cores.remove("native")
    failed = [core for core in cores if _play(seeds, core, options.jobs, options.most)]
    return 1 if failed else 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kvsync_testkit.faults", description=__doc__)
    parser.add_argument("--seeds", default="0-999", metavar="A-B", help="seeds to play, one number or a range")
    parser.add_argument("--most", type=int, default=5, help="stop after this many failures")
    parser.add_argument("--core", choices=("python", "native", "both"), default="python", help="the core under test")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one per processor)")
    parser.add_argument("--trace", action="store_true", help="print the first seed's run, passed or not, and end")
    options = parser.parse_args(arguments)
    for name in ("most", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def _play(seeds: range, core: CoreName, jobs: int, most: int) -> bool:
    """One core's campaign; returns whether anything failed."""
    sys.stderr.write(f"{len(seeds):,} schedules on the {core} core, {jobs} at a time\n")
    started = time.monotonic()
    tally = play_campaign(seeds, core, jobs, most, ProgressLine(len(seeds)))
    for seed, text in tally.failures:
        again = f"python -m kvsync_testkit.faults --core {core} --seeds {seed}"
        sys.stdout.write(f"{text}\n  again: {again}\n\n")
    sys.stdout.write(summarise(tally, seeds, core, time.monotonic() - started))
    sys.stdout.flush()
    return bool(tally.failures)


def summarise(tally: Tally, seeds: range, core: CoreName, spent_s: float) -> str:
    """What was played and found, for the end of a log."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(tally.faults.items()))
    played = f"{core} core: {tally.schedules:,} of {len(seeds):,} schedules (seeds {seeds[0]} to {seeds[-1]})"
    failed = ", ".join(str(seed) for seed, _ in tally.failures)
    lines = [
        f"{played} in {spent_s:.0f} s, {tally.batches:,} batches, {tally.faults.total():,} faults",
        f"  faults: {kinds or 'none'}",
        f"  FAILED with seeds {failed}" if failed else "  passed: 0 failures",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
