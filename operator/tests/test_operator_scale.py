"""Many MockEngines at once: the operator as a separate process against the small API server, with a report of its cost.

The ordinary suite creates 60 of them. With `KVSYNC_OPERATOR_SCALE=200` the test also asserts the documented limit, 200
of them ready within a minute. The report is out/operator-scale.json.
"""

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import psutil

from kvsync_testkit.cluster import FakeKube
from kvsync_testkit.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
SCALE = os.environ.get("KVSYNC_OPERATOR_SCALE")
COUNT = int(SCALE or "60")
LIMIT_S = 60.0


def count_ready(api):
    found = 0
    for obj in api.all("mockengines"):
        conditions = obj.get("status", {}).get("conditions", [])
        found += any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return found


def test_many_engines_become_ready(tmp_path):
    with FakeKube() as api:
        for number in range(COUNT):
            metadata = {"name": f"engine-{number}", "namespace": "lab"}
            spec = {"replicas": 2, "model": {"name": "m"}}
            api.put({"apiVersion": "kvsync.dev/v1alpha1", "kind": "MockEngine", "metadata": metadata, "spec": spec})
        environment = os.environ | {"KUBECONFIG": str(api.kubeconfig(tmp_path))}
        command = [sys.executable, "-m", "kvsync_operator.main", "--namespace", "lab"]
        began = time.monotonic()
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(
                [*command, "--http-host", "127.0.0.1", "--http-port", "0"], env=environment, stdout=log, stderr=log
            ) as process,
        ):

            def all_ready():
                assert process.poll() is None, (tmp_path / "log").read_text()
                return count_ready(api) == COUNT

            try:
                wait_until(f"{COUNT} engines are ready", all_ready, deadline_s=110.0, every_s=0.05)
                elapsed = time.monotonic() - began
                usage = psutil.Process(process.pid)
                cpu, memory = usage.cpu_times(), usage.memory_info()
            finally:
                process.terminate()
    writes = {key: count for key, count in sorted(api.requests.items()) if not key.startswith("GET")}
    report = {
        "engines": COUNT,
        "seconds": round(elapsed, 2),
        "cpu_s": round(cpu.user + cpu.system, 2),
        "rss_mib": round(memory.rss / 2**20, 1),
        "requests": sum(api.requests.values()),
        "writes": writes,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    (out / "operator-scale.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))
    if SCALE:
        assert elapsed < LIMIT_S
    assert writes["PATCH deployments"] <= COUNT * 1.1, "objects are applied once, not whenever a watch delivers them"
    assert memory.rss < 512 * 2**20
