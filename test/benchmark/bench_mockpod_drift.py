"""Measures whether a pod changes over time under steady load: latency, CPU time and memory per window of a long run.

    python bench_mockpod_drift.py [--minutes 5] [--rate 20] [--window 30] [--json FILE]

The load is an open loop: requests with distinct 512-token prompts and 32 output tokens are sent when they are due,
whatever the pod does. The cache of 4,096 blocks is full after the first seconds, so that blocks are stored and evicted
all the time. The pod runs the `quadratic` latency profile and keeps 500 batches for replay; a larger buffer only takes
longer to fill. On a shared machine, latency includes the effect of other processes, while CPU time per request and
memory do not. Compare the last window with the second one, because the first one fills cache and buffer.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
import urllib.request
from pathlib import Path

from bench_mockpod_load import Served, post, start_pod

PROMPT, OUTPUT, CACHE = 512, 32, 4096


async def one(port: int, body: bytes, took_ms: list[float]) -> None:
    """Send one request on its own connection, and record the time until the end of the answer."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(body)
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode().lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
    await reader.readexactly(length)
    took_ms.append((time.perf_counter() - begun) * 1e3)
    writer.close()
    if " 200 " not in lines[0]:
        raise SystemExit(f"the pod answered {lines[0]}")


def row(pod: Served, took_ms: list[float], cpu_s: float) -> dict[str, float]:
    """Return the figures of one window."""
    begun = time.perf_counter()
    urllib.request.urlopen(f"http://127.0.0.1:{pod.port}/metrics", timeout=30).read()
    scrape = time.perf_counter() - begun
    ordered = sorted(took_ms)
    return {
        "requests": len(ordered),
        "p50_ms": round(statistics.median(ordered), 2),
        "p95_ms": round(ordered[int(len(ordered) * 0.95)], 2),
        "cpu_ms_per_request": round(cpu_s / len(ordered) * 1e3, 3),
        "rss_mib": round(pod.rss_mib, 1),
        "metrics_ms": round(scrape * 1e3, 2),
    }


async def windows(pod: Served, rate: float, window_s: float, count: int) -> list[dict[str, float]]:
    """Apply load without a pause, and return one row per window."""
    chance, rows, running = random.Random(1), [], set()
    start, sent = time.perf_counter(), 0
    for number in range(1, count + 1):
        took_ms: list[float] = []
        before = pod.cpu_s
        while sent < number * window_s * rate:
            prompt = [chance.randrange(70_000, 2**31) for _ in range(PROMPT)]
            body = post("/v1/completions", {"prompt": prompt, "max_tokens": OUTPUT, "ignore_eos": True})
            await asyncio.sleep(max(start + sent / rate - time.perf_counter(), 0))
            task = asyncio.create_task(one(pod.port, body, took_ms))
            running.add(task)
            task.add_done_callback(running.discard)
            sent += 1
        await asyncio.gather(*running)
        rows.append(await asyncio.to_thread(row, pod, took_ms, pod.cpu_s - before))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--window", type=float, default=30)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    flags = ("--num-gpu-blocks-override", str(CACHE), "--max-model-len", "4096", "--mock-latency", "quadratic")
    pod = start_pod(*flags, buffer_steps=500)
    try:
        count = max(int(options.minutes * 60 / options.window), 3)
        rows = asyncio.run(windows(pod, options.rate, options.window, count))
    finally:
        pod.stop()
    keys = ("p50_ms", "cpu_ms_per_request", "rss_mib", "metrics_ms")
    drift = {key: round(rows[-1][key] / rows[1][key], 3) for key in keys}
    print("last window / second window:", json.dumps(drift))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "last_to_second": drift}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
