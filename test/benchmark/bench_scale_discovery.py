"""Measures discovery with very many pods.

    python bench_scale_discovery.py [--pods 10000] [--changes 1000]

Prints JSON. The API server is the test kit's, in another process, and sends the pods over HTTP in pages of 500. For the
first list: the time and the CPU time of this process until every pod is a publisher, and the growth of its resident
memory. For pods that are then replaced one after the other: the CPU time per change. Engines are not asked for their
event sources, and nothing is connected, so this is the cost of discovery alone. The exit status is 1 if a pod is
missing at the end.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from bench_service_publishers import read_resident
from kubernetes import client

from kvsync_indexer.discovery import PodTable
from kvsync_indexer.discovery.watcher import PodWatcher
from kvsync_indexer.publishers import PublisherSpec
from kvsync_testkit.cluster import FakeKube
from kvsync_testkit.waiting import wait_until

DEADLINE_S = 300.0
SELECTOR = "kvsync.dev/kv-events=true"


def make_pod(number: int, life: int) -> dict[str, Any]:
    """Pod `number` as an API server shows it; every life has an address and a UID of its own."""
    address = number + life * 1_000_003
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"engine-{number}",
            "namespace": "default",
            "uid": f"uid-{number}-{life}",
            "labels": {"kvsync.dev/kv-events": "true"},
            "annotations": {"kvsync.dev/model": f"model-{number % 100}"},
        },
        "spec": {"containers": [{"name": "engine", "args": ["--model", f"model-{number % 100}"]}]},
        "status": {
            "podIP": f"10.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}",
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "engine", "restartCount": 0}],
        },
    }


def serve(pods: int) -> None:
    """Serve the pods, print the URL, and replace as many of them as each line of stdin says."""
    with FakeKube() as kube:
        for number in range(pods):
            kube.replace(make_pod(number, 0))
        print(kube.url, flush=True)
        for line in sys.stdin:
            for number in range(int(line)):
                kube.replace(make_pod(number, 1))
            print("replaced", flush=True)
        kube.end_watches()


class Sink:
    """Takes publishers and connects to none."""

    def __init__(self) -> None:
        self.specs: dict[str, PublisherSpec] = {}

    def add(self, spec: PublisherSpec) -> None:
        """Take or replace one."""
        self.specs[spec.name] = spec

    def remove(self, name: str) -> None:
        """Drop one."""
        del self.specs[name]


def wait_for(what: str, holds: Callable[[], bool]) -> None:
    """Poll seldom enough not to disturb what is measured."""
    wait_until(what, holds, deadline_s=DEADLINE_S, every_s=0.02)


def measure(pods: int, changes: int) -> dict[str, float]:
    """Discover the pods, follow the changes and return the figures."""
    command = [sys.executable, __file__, "--serve", str(pods)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        settings = client.Configuration(host=server.stdout.readline().strip())
        settings.retries = False
        sink = Sink()
        table = PodTable(sink, qualified=False)
        watcher = PodWatcher(
            client.CoreV1Api(client.ApiClient(settings)), table, namespace="default", selector=SELECTOR
        )
        resident, cpu, begun = read_resident(), time.process_time(), time.perf_counter()
        watcher.start()
        wait_for("every pod is a publisher", lambda: len(sink.specs) == pods and watcher.synced.is_set())
        listed_s, listed_cpu = time.perf_counter() - begun, time.process_time() - cpu
        resident = read_resident() - resident
        cpu = time.process_time()
        server.stdin.write(f"{changes}\n")
        server.stdin.flush()
        server.stdout.readline()
        wait_for("every change is known", lambda: _changed(sink) == changes)
        changed_cpu = time.process_time() - cpu
        watcher.stop()
        return {
            "pods": pods,
            "listed_s": round(listed_s, 2),
            "listed_cpu_s": round(listed_cpu, 2),
            "resident_kib_per_pod": round(resident / pods / 1024, 2),
            "changes": changes,
            "cpu_ms_per_change": round(1e3 * changed_cpu / changes, 3),
            "publishers_at_the_end": len(sink.specs),
        }
    finally:
        server.kill()
        server.wait()


def _changed(sink: Sink) -> int:
    return sum((spec.epoch or "").split("/")[0].endswith("-1") for spec in list(sink.specs.values()))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pods", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=1_000)
    parser.add_argument("--serve", type=int, metavar="PODS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    figures = measure(options.pods, options.changes)
    print(json.dumps({"load": os.getloadavg(), "script": Path(__file__).name, **figures}, indent=1))
    return int(figures["publishers_at_the_end"] != options.pods)


if __name__ == "__main__":
    sys.exit(main())
