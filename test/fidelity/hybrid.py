"""Compares the index with vLLM's own KV cache manager for models with several cache groups.

    hybrid.py [--count 40] [--seed N] [--vllm 0.33.0] [--environment DIR] [--record FILE]

Random prompts are stored and evicted by vLLM's `KVCacheManager` with full-attention, sliding-window and Mamba groups of
equal and of different block sizes. Its events are applied to every installed core. After each step, no core may claim
more of any prompt than `HybridKVCacheCoordinator.find_longest_cache_hit` would hit. Some answers are shorter: where the
engine recomputes a chain from its root although its blocks are resident, the index takes the event for a report (see
`docs/design/index-core.md`). More than a tenth of them are a failure. `--record` writes the histories for `make test`.
The exit code is 1 if an answer is wrong.
"""

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import msgpack
from environment import EnvironmentFailedError, ensure_environment

from kvsync_indexer.core import Context, make_core, native_available

HERE = Path(__file__).parent
MOST_SHORTER = 0.1
"""The share of answers that may be shorter than what the engine hits."""


def histories(python, seeds):
    """What vLLM's manager does with these seeds."""
    lines = "".join(json.dumps({"seed": seed}) + "\n" for seed in seeds)
    run = subprocess.run(
        [str(python), "-W", "ignore", str(HERE / "vllm_hybrid_driver.py")],
        input=lines, text=True, stdout=subprocess.PIPE, env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"}, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in run.stdout.splitlines()]


def differences(history, kind):
    """Answers of a core that are not what vLLM hits: `(step, prompt, claimed, hit)`; and the number of answers."""
    core = make_core(kind)
    core.add_publisher("p", "m")
    kinds = [describe(one) for one in history["layout"]]
    found, count = [], 0
    for at, step in enumerate(history["steps"]):
        events = [{**event, **kinds[event["group_idx"]]} if "group_idx" in event else event for event in step["events"]]
        core.apply("p", msgpack.packb([float(at), events, 0]))
        for number, (prompt, hit) in enumerate(zip(history["prompts"], step["hits"], strict=True)):
            claimed = sum(match.tokens for match in core.match(Context("m"), prompt))
            count += 1
            if claimed != hit:
                found.append((at, number, claimed, hit))
    return found, count


def describe(group):
    """The fields by which vLLM's scheduler describes a group in its events."""
    kind, _, *window = group
    names = {"full": "full_attention", "window": "sliding_window", "mamba": "mamba"}
    return {"kv_cache_spec_kind": names[kind], "kv_cache_spec_sliding_window": window[0] if window else None}


def check(played, kind):
    """What is wrong with the answers of a core to these histories, one line each; and the number of answers."""
    wrong, shorter, answers = [], 0, 0
    for history in played:
        if "error" in history:
            wrong.append(history["error"])
            continue
        found, count = differences(history, kind)
        longer = [one for one in found if one[2] > one[3]]
        if longer:
            wrong.append(f"{kind} claims too much in {len(longer)} answers of {history['layout']}: {longer[:3]}")
        shorter, answers = shorter + len(found) - len(longer), answers + count
    if shorter > MOST_SHORTER * answers:
        wrong.append(f"{kind} claims too little in {shorter} of {answers} answers")
    return wrong, answers


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vllm", default="0.33.0")
    parser.add_argument("--environment")
    parser.add_argument("--record", type=Path)
    args = parser.parse_args()
    try:
        python = ensure_environment(args.vllm, args.environment)
    except EnvironmentFailedError as error:
        print(error, file=sys.stderr)
        return 2
    played = histories(python, range(args.seed, args.seed + args.count))
    if args.record:
        data = "".join(json.dumps(history, separators=(",", ":")) + "\n" for history in played)
        args.record.write_bytes(gzip.compress(data.encode(), mtime=0))
    kinds = ["python", "native"] if native_available()[0] else ["python"]
    failed = False
    for kind in kinds:
        wrong, answers = check(played, kind)
        failed = failed or bool(wrong)
        print(*wrong, f"{kind}: {len(played)} histories of hybrid groups, {answers} answers", sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
