"""Golden tests of `reconcile`: from a custom resource and the observed objects to objects, status and events."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from kvsync_operator.grants import Grants
from kvsync_operator.manifests import dump_yaml
from kvsync_operator.objects import Images
from kvsync_operator.reconcile import Observed, PoolReport, Problem, SyncReport, reconcile

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
IMAGES = Images(mockpod="registry.example/mockpod:1", indexer="registry.example/indexer:1")
NOW = "2026-03-01T12:00:00Z"


def deep_merge(base, change):
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: deep_merge(base.get(key), value) for key, value in change.items()}}
    return change


def observed_children(seen, desired):
    """Return the observed objects: with `children: desired` all desired ones, changed and removed as the case says."""
    if seen.get("children") != "desired":
        return []
    children = []
    for obj in desired:
        key = f"{obj['kind']}/{obj['metadata']['name']}"
        if key in seen.get("missing", []):
            continue
        children.append(deep_merge(obj, seen.get("changed", {}).get(key, {})))
    return [*children, *seen.get("extra", [])]


def observed_pool(seen):
    if "pool" not in seen:
        return None
    told = seen["pool"]
    problem = Problem(**told["problem"]) if "problem" in told else None
    return PoolReport(tuple(told.get("live", ())), told.get("installed", True), problem)


def observe(case):
    (resource, seen) = list(yaml.safe_load_all((GOLDEN / case / "input.yaml").read_text()))
    granted = Grants.parse(seen.get("grantsBefore", seen.get("grants", [])))
    pool = observed_pool(seen)
    first = reconcile(Observed(document=resource, children=(), images=IMAGES, now=NOW, grants=granted, pool=pool))
    sync = SyncReport(**seen["sync"]) if "sync" in seen else None
    return Observed(
        document=resource,
        children=tuple(observed_children(seen, first.objects)),
        images=IMAGES,
        now=NOW,
        grants=Grants.parse(seen.get("grants", [])),
        sync=sync,
        pool=pool,
        problems=tuple(Problem(**problem) for problem in seen.get("problems", [])),
        enforce=seen.get("enforce", False),
    )


def as_document(plan):
    pools = {"pool": plan.pool, "prune_pools": [str(reference) for reference in plan.prune_pools]}
    return {
        "objects": list(plan.objects),
        "prune": [str(reference) for reference in plan.prune],
        **{key: value for key, value in pools.items() if value},
        "status": plan.status,
        "events": [f"{event.type} {event.reason}: {event.message}" for event in plan.events],
        "repairs": [f"{event.type} {event.reason}: {event.message}" for event in plan.repairs],
    }


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    plan = as_document(reconcile(observe(case)))
    file = GOLDEN / case / "expected.yaml"
    if os.environ.get("KVSYNC_GOLDEN") == "write":
        file.write_text(dump_yaml(plan))
    assert plan == yaml.safe_load(file.read_text())


@pytest.mark.parametrize("case", CASES)
def test_a_pass_is_a_function_of_what_it_sees(case):
    observed = observe(case)
    before = dump_yaml(observed.document)
    assert reconcile(observed) == reconcile(observed)
    assert dump_yaml(observed.document) == before


@pytest.mark.parametrize("case", CASES)
def test_a_pass_after_its_plan_was_carried_out_has_nothing_to_do(case):
    observed = observe(case)
    plan = reconcile(observed)
    if plan.status is None or any(item["reason"] == "InvalidSpec" for item in plan.status["conditions"]):
        return
    pruned = {str(reference) for reference in plan.prune}
    live = {f"{c['kind']} {c['metadata']['namespace']}/{c['metadata']['name']}": c for c in observed.children}
    for obj in plan.objects:
        key = f"{obj['kind']} {obj['metadata']['namespace']}/{obj['metadata']['name']}"
        live[key] = deep_merge(live.get(key, {}), obj)
    children = tuple(obj for key, obj in live.items() if key not in pruned)
    document = {**observed.document, "status": plan.status}
    pool = observed.pool
    if pool is not None:
        names = {reference.name for reference in plan.prune_pools}
        kept = [each for each in pool.live if each["metadata"]["name"] not in names]
        pool = replace(pool, live=tuple([*kept, plan.pool] if plan.pool else kept))
    again = reconcile(
        replace(observed, document=document, children=children, pool=pool, now="2026-03-01T13:00:00Z", problems=())
    )
    assert again.objects == ()
    assert again.pool is None
    assert again.prune_pools == ()
    assert again.prune == ()
    assert again.repairs == ()
