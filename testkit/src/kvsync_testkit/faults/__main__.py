"""`python -m kvsync_testkit.faults`: play seeds, print what fails. Exit code 1 if anything did, 2 on a bad range."""

import argparse
import sys

from kvsync_testkit.faults.plan import expand_schedule
from kvsync_testkit.faults.search import find_failures
from kvsync_testkit.faults.simulation import build_core, build_native_core, run_schedule


def main() -> int:
    """Parse the options and play."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0-999", metavar="A-B", help="seeds to play, one number or a range")
    parser.add_argument("--most", type=int, default=5, help="stop after this many failures")
    parser.add_argument("--core", choices=("python", "native"), default="python", help="the index core under test")
    parser.add_argument("--trace", action="store_true", help="print the (single) seed's run even if it passes")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    if not first.isdigit() or not (last or first).isdigit():
        sys.stderr.write(f"error: --seeds must be N or A-B, not {options.seeds!r}\n")
        return 2
    seeds = range(int(first), int(last or first) + 1)
    core = build_native_core if options.core == "native" else build_core
    if options.trace:
        sys.stdout.write(f"{run_schedule(expand_schedule(seeds[0]), core=core)}\n")
    failures = find_failures(seeds, core=core, at_most=options.most)
    for failure in failures:
        sys.stdout.write(f"{failure}\n\n")
    sys.stdout.write(f"{len(seeds)} seeds, {len(failures)} failures\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
