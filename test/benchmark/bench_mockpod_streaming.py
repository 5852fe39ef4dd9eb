"""Measures the streaming completions per second of one pod: 16 tokens each, latency `none`, 64 connections.

    python bench_mockpod_streaming.py [--rounds 5] [--requests 2000] [--json FILE]

The reference, measured alternately, is the same server stack sending 17 prepared chunks without an engine. The target
is 1,000 completions per second on two cores that are shared with the client.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

from bench_mockpod_load import Served, drive, post, start_pod, start_reference

TOKENS, CONNECTIONS = 16, 64
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"


def requests(count: int, first: int) -> list[bytes]:
    """Return requests with distinct prompts of 24 tokens."""
    return [
        post(
            "/v1/completions",
            {
                "prompt": [70_000 + (first + number) * 24 + place for place in range(24)],
                "max_tokens": TOKENS,
                "stream": True,
            },
        )
        for number in range(count)
    ]


def one_round(served: Served, batch: list[bytes]) -> dict[str, float]:
    """Return the rates of one pass."""
    before = served.cpu_s
    wall = drive(served.port, batch, CONNECTIONS, END)
    cpu = served.cpu_s - before
    return {"per_s": len(batch) / wall, "per_cpu_s": len(batch) / cpu, "cpu_us": cpu / len(batch) * 1e6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    pod, reference = start_pod(), start_reference(TOKENS)
    rows: dict[str, list[dict[str, float]]] = {"pod": [], "reference": []}
    try:
        idle_mib = pod.rss_mib
        drive(pod.port, requests(200, 0), CONNECTIONS, END)
        for number in range(options.rounds):
            batch = requests(options.requests, 1000 + number * options.requests)
            rows["pod"].append(one_round(pod, batch))
            rows["reference"].append(one_round(reference, batch))
        loaded_mib = pod.rss_mib
    finally:
        pod.stop()
        reference.stop()
    result = {
        name: {key: statistics.median(row[key] for row in found) for key in found[0]} for name, found in rows.items()
    }
    result["ratio_cpu"] = result["pod"]["cpu_us"] / result["reference"]["cpu_us"]
    result["rss_mib"] = {"idle": idle_mib, "loaded": loaded_mib}
    result["rounds"], result["requests"], result["tokens"] = options.rounds, options.requests, TOKENS
    json.dump(result, sys.stdout, indent=1)
    print()
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
