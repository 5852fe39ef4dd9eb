"""Measures the completion of a transfer on a link that N transfers share: CPU time and comparisons.

    python bench_tier_link.py [--sizes 10 100 1000 10000 100000] [--completions 20000] [--rounds 5] [--json FILE]

Each completion starts the next transfer, so that N stay in flight. The reference is a bare binary heap of the same size
that does one pop and one push, in the same run. Each round goes through all sizes, and a figure is the median of its
rounds. Comparisons are counted in a separate run.
"""

import argparse
import heapq
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kvsync_mockpod.engine import Link

BANDWIDTH = 1e9
LARGEST = 10**6
SEED = 11


class Counted(float):
    """A number of bytes that counts comparisons. Sums with it count too, so that the count is the work of the heap."""

    compared = 0

    def __add__(self, other: float) -> "Counted":
        return Counted(float(self) + float(other))

    __radd__ = __add__

    def __lt__(self, other: float) -> bool:
        Counted.compared += 1
        return float.__lt__(self, other)


class Busy:
    """A link with a constant number of transfers, each of which starts another when it ends."""

    def __init__(self, transfers: int, size: Callable[[], float]) -> None:
        self.link = Link(BANDWIDTH)
        self._size = size
        self._ended = -transfers
        for _ in range(transfers):
            self._again(0.0)
        self.complete(transfers)  # skip the start, when no transfer has made progress

    def _again(self, at_s: float) -> None:
        self._ended += 1
        self.link.start(self._size(), at_s, self._again)  # type: ignore[arg-type]

    def complete(self, completions: int) -> None:
        """Advance from one completion to the next until that many transfers have ended."""
        goal = self._ended + completions
        while self._ended < goal:
            deadline = self.link.deadline()
            assert deadline is not None
            self.link.advance(deadline)


def link_us(transfers: int, completions: int) -> float:
    """Return the CPU microseconds per completion."""
    rng = random.Random(SEED)
    busy = Busy(transfers, lambda: rng.randrange(1, LARGEST))
    began = time.process_time()
    busy.complete(completions)
    return (time.process_time() - began) / completions * 1e6


def heap_us(transfers: int, completions: int) -> float:
    """Return the CPU microseconds of one pop and one push on a bare heap."""
    rng = random.Random(SEED)
    heap = [(float(rng.randrange(1, LARGEST)), n, None) for n in range(transfers)]
    heapq.heapify(heap)
    began = time.process_time()
    for number in range(transfers, transfers + completions):
        end, _, _ = heapq.heappop(heap)
        heapq.heappush(heap, (end + rng.randrange(1, LARGEST), number, None))
    return (time.process_time() - began) / completions * 1e6


def comparisons(transfers: int, completions: int) -> float:
    """Return the comparisons per completion, which is one end and one start."""
    rng = random.Random(SEED)
    busy = Busy(transfers, lambda: Counted(rng.randrange(1, LARGEST)))
    before = Counted.compared
    busy.complete(completions)
    return (Counted.compared - before) / completions


def measure(sizes: list[int], completions: int, rounds: int) -> list[dict[str, float]]:
    """Return one row per size."""
    link: dict[int, list[float]] = {n: [] for n in sizes}
    heap: dict[int, list[float]] = {n: [] for n in sizes}
    for _ in range(rounds):
        for n in sizes:
            link[n].append(link_us(n, completions))
            heap[n].append(heap_us(n, completions))
    rows = []
    for n in sizes:
        compared = comparisons(n, completions)
        ours, bare = statistics.median(link[n]), statistics.median(heap[n])
        rows.append(
            {
                "transfers": n,
                "link_us": round(ours, 3),
                "heap_us": round(bare, 3),
                "beyond_heap_us": round(ours - bare, 3),
                "comparisons": round(compared, 2),
                "comparisons_per_log2": round(compared / math.log2(n), 2),
            }
        )
    return rows


def main() -> int:
    """Measure, and print a table or write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1_000, 10_000, 100_000])
    parser.add_argument("--completions", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="a file, or - for standard output without a table")
    args = parser.parse_args()
    rows = measure(args.sizes, args.completions, args.rounds)
    document = json.dumps({"completions": args.completions, "rounds": args.rounds, "rows": rows})
    if args.json == "-":
        print(document)
        return 0
    names = list(rows[0])
    print("  ".join(f"{name:>20}" for name in names))
    for row in rows:
        print("  ".join(f"{row[name]:>20,}" for name in names))
    if args.json is not None:
        Path(args.json).write_text(document + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
