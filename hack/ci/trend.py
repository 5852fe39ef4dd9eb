#!/usr/bin/env python3
"""Append the medians of a benchmark run to a trend file: `make benchmark-trend`, in the nightly workflow.

Each line of out/trend/trend.jsonl is one run: when, which revision, on which kind of machine, the median cost of each
job, and the figures. Runs on different kinds of machines cannot be compared, so that each line has the fingerprint.
"""

import json
import os
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Read the report, append one line, and return 0; 2 without a report."""
    source = Path(os.environ.get("REPORT", ROOT / "out/benchmark/report.json"))
    target = Path(os.environ.get("TREND", ROOT / "out/trend/trend.jsonl"))
    if not source.exists():
        print(f"trend: there is no {source}; run make test-kv-sync-benchmark first", file=sys.stderr)
        return 2
    line = summarize(json.loads(source.read_text(encoding="utf-8")), datetime.now(UTC))
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")
    print(f"trend: {len(target.read_text(encoding='utf-8').splitlines())} runs in {target}")
    return 0


def summarize(report: dict[str, Any], now: datetime) -> dict[str, Any]:
    """One line of the trend file."""
    return {
        "at": now.isoformat(timespec="seconds"),
        "head": report["head"],
        "fingerprint": report["fingerprint"],
        "passed": report["verdict"]["passed"],
        "median_cost": {job: statistics.median(sides["head"]) for job, sides in report["gate"]["samples"].items()},
        "figures": {
            f"{group['name']}: {figure['name']}": figure["value"]
            for group in report["groups"]
            for figure in group["figures"]
        },
    }


if __name__ == "__main__":
    sys.exit(main())
