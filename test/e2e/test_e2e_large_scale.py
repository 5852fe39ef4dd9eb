"""LargeScale: KVSYNC_SCALE pods (10, 50 or 100) start, publish and converge; a report contains times and costs."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e_engines import BLOCK, tokens_of
from e2e_metrics import Metrics

SCALE = int(os.environ.get("KVSYNC_SCALE", "10"))
REQUESTS_PER_POD = 8
PROMPT_BLOCKS = 32
WORKERS = 8
# Limits that a defect exceeds and a busy machine does not. With 10 pods on two cores with much other work, the lag was
# at most 0.05 s for 99 % of the events, at 268 requests per second, with 0.06 of a core and 96 MiB.
LAG_P99_S = 2.0
REQUESTS_PER_S = 20.0
CPU_SHARE = 0.5
MEMORY_MIB = 140.0
MEMORY_MIB_PER_POD = 1.0


@pytest.mark.scale
@pytest.mark.timeout(900)
def test_many_pods_come_up_publish_and_converge(deploy, namespace, report_file):
    began = time.monotonic()
    index = deploy.index("idx", namespace, template={"resources": {"limits": {"memory": "2Gi"}}})
    engine = deploy.engine("crowd", namespace, replicas=SCALE)
    index.wait_ready()
    pods = engine.wait_ready(SCALE, deadline_s=60.0 + 5.0 * SCALE)
    up_s = time.monotonic() - began
    index.wait_live([pod.name for pod in pods], deadline_s=60.0 + SCALE)
    live_s = time.monotonic() - began

    before = Metrics.parse(index.call("GET", "/metrics"))
    shared = tokens_of("everyone's system prompt", 8 * BLOCK)
    jobs = [(pod, number) for number in range(REQUESTS_PER_POD) for pod in pods]

    def send(job):
        pod, number = job
        tokens = shared + tokens_of((pod.name, number), (PROMPT_BLOCKS - 8) * BLOCK)
        pod.complete(tokens, model="crowd")

    load_began = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(send, jobs))
    load_s = time.monotonic() - load_began

    sent_at = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        counts = dict(zip(pods, pool.map(lambda pod: index.wait_agrees([pod], deadline_s=120.0), pods), strict=True))
    converged_s = time.monotonic() - sent_at
    blocks = sum(count for table in counts.values() for count in table.values())
    assert blocks == SCALE * (8 + REQUESTS_PER_POD * (PROMPT_BLOCKS - 8))

    after = Metrics.parse(index.call("GET", "/metrics"))
    lag = after.histogram("kvsync_indexer_event_visible_seconds").since(
        before.histogram("kvsync_indexer_event_visible_seconds")
    )
    cpu_s = after.value("process_cpu_seconds_total") - before.value("process_cpu_seconds_total")
    events = after.total("kvsync_indexer_events_total") - before.total("kvsync_indexer_events_total")
    assert events >= SCALE * REQUESTS_PER_POD

    # The best match is the right pod.
    for pod in pods[:: max(1, SCALE // 10)]:
        tokens = shared + tokens_of((pod.name, 0), (PROMPT_BLOCKS - 8) * BLOCK)
        best = index.match("crowd", tokens)[0]
        assert best["pod"].endswith(pod.name)
        assert best["matched_blocks"] == PROMPT_BLOCKS

    # A third of the pods is removed at once; only their entries leave the index.
    remaining = SCALE - max(1, SCALE // 3)
    engine.scale(remaining)
    down_began = time.monotonic()
    left = engine.wait_ready(remaining, deadline_s=60.0 + SCALE)
    index.wait_live([pod.name for pod in left], deadline_s=30.0)
    with ThreadPoolExecutor(WORKERS) as pool:
        remained = list(pool.map(lambda pod: index.wait_agrees([pod], deadline_s=60.0)[pod.name], left))
    assert sum(remained) == remaining * (8 + REQUESTS_PER_POD * (PROMPT_BLOCKS - 8))

    report = {
        "pods": SCALE,
        "pods_ready_s": round(up_s, 1),
        "all_live_s": round(live_s, 1),
        "requests": len(jobs),
        "requests_per_s": round(len(jobs) / load_s, 1),
        "events": int(events),
        "events_per_s": round(events / load_s, 1),
        "blocks": blocks,
        "event_lag_p50_s": lag.quantile(0.50),
        "event_lag_p99_s": lag.quantile(0.99),
        "converged_and_compared_s": round(converged_s, 2),
        "index_cpu_s": round(cpu_s, 2),
        "index_cpu_share": round(cpu_s / (load_s + converged_s), 3),
        "index_memory_mib": round(after.value("process_resident_memory_bytes") / 2**20, 1),
        "third_left_s": round(time.monotonic() - down_began, 1),
    }
    report_file(f"scale-{SCALE}.json", json.dumps(report, indent=2) + "\n")
    assert lag.quantile(0.99) <= LAG_P99_S, report
    assert report["requests_per_s"] >= REQUESTS_PER_S, report
    assert report["index_cpu_share"] <= CPU_SHARE, report
    assert report["index_memory_mib"] <= MEMORY_MIB + MEMORY_MIB_PER_POD * SCALE, report
