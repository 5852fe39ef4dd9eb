"""`make test-fidelity`: plays random schedules on vLLM's own engine core and on the mock engine and compares every
step.

    run.py [--count 200] [--seed N] [--vllm 0.33.0] [--environment DIR] [--out out/fidelity]
    run.py --replay FILE     play one schedule file instead
    run.py --canary [NAME]   plant bugs in the mock engine; each must be found and shrunk

The exit code is 0 if all schedules are equal (or every planted bug was found), 1 if one differs (or a planted bug was
missed), and 2 if vLLM could not be installed or run. The first divergence is shrunk and written together with both
logs.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from canary import CANARIES, MissedError, hunt
from compare import Comparison, mock_log
from environment import EnvironmentFailedError, ensure_environment
from generate import generate
from shrink import shrink
from vllm_process import Vllm, VllmError

from kvsync_mockpod.errors import ScenarioError


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def compare_all(comparison, args, out):
    """Compare all schedules up to the first that differs, which is shrunk."""
    began = time.monotonic()
    for count, (name, rows) in enumerate(schedules(args), 1):
        first = comparison.first_difference(rows)
        if first is not None:
            print(f"{name} DIFFERS: {first}", flush=True)
            report(comparison, rows, out, name)
            return 1
        if count % 20 == 0:
            print(f"{count} schedules, {comparison.steps} steps equal", flush=True)
    took = time.monotonic() - began
    counted = f"{comparison.schedules} schedules, {comparison.steps} steps"
    print(f"equal to vLLM {comparison.version}: {counted} ({took:.0f} s)")
    return 0


def report(comparison, rows, out, name):
    """Shrink a diverging schedule, write it and both logs, and report the difference."""
    small = shrink(rows, comparison.differs_at)
    write_rows(out / f"{name}.jsonl", small)
    write_rows(out / f"{name}.vllm.jsonl", comparison.vllm.log(small))
    write_rows(out / f"{name}.mock.jsonl", mock_log(small, comparison.version))
    print(f"shrunk to {sum('id' in row for row in small)} requests: {out / name}.jsonl")
    print(f"  {comparison.first_difference(small)}")
    for row in small:
        print(f"  {json.dumps(row)}")


def canaries(comparison, args, out):
    """Check every planted bug, or the named one: it is found, shrunk, and absent from the unchanged engine."""
    missed = 0
    for canary in [c for c in CANARIES if args.canary in ("all", c.name)]:
        began, asked = time.monotonic(), comparison.vllm.asked
        try:
            found = hunt(canary, comparison, schedules(args), shrink)
        except MissedError as error:
            print(f"MISSED {error}", flush=True)
            missed += 1
            continue
        write_rows(out / f"canary-{canary.name}.jsonl", found.small)
        took, asked = time.monotonic() - began, comparison.vllm.asked - asked
        print(f"{canary.name}: {canary.says}")
        print(f"  found on schedule {found.tried} ({found.name}), shrunk from {len(found.rows)} to {len(found.small)}")
        print(f"  rows, {asked} questions to vLLM, {took:.0f} s; {found.difference}")
        for row in found.small:
            print(f"    {json.dumps(row)}")
        sys.stdout.flush()
    return 1 if missed else 0


def schedules(args):
    if args.replay:
        with Path(args.replay).open() as lines:
            yield Path(args.replay).stem, [json.loads(line) for line in lines if line.strip()]
        return
    first = args.seed
    if first is None:  # planted bugs are looked for in the same schedules every time
        first = 0 if args.canary else int(time.strftime("%Y%m%d", time.gmtime())) * 1000
    for seed in range(first, first + args.count):
        yield f"seed-{seed}", generate(seed)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="schedules to compare")
    parser.add_argument("--seed", type=int, default=None, help="first seed (default: from the date; 0 with --canary)")
    parser.add_argument("--vllm", default="0.33.0", help="version to compare with")
    parser.add_argument("--environment", help="a virtual environment, or its Python, that has this version already")
    parser.add_argument("--out", default="out/fidelity", help="where a divergence is written")
    parser.add_argument("--replay", help="compare this schedule file only")
    names = ["all", *(canary.name for canary in CANARIES)]
    parser.add_argument("--canary", nargs="?", const="all", choices=names, help="plant bugs; each must be found")
    return parser.parse_args()


def main():
    args = arguments()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        vllm = Vllm(ensure_environment(args.vllm, args.environment), out / "vllm.log")
        try:
            return (canaries if args.canary else compare_all)(Comparison(vllm, args.vllm), args, out)
        finally:
            vllm.close()
    except (EnvironmentFailedError, VllmError, ScenarioError, OSError) as error:
        print(f"test-fidelity: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
