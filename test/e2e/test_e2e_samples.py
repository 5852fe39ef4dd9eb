"""Every file of config/samples works unchanged: its resources become ready, and its indexes follow its engines."""

from pathlib import Path

import pytest
import yaml
from e2e_engines import Engine
from e2e_index import Index
from test_e2e_operator import wait_condition

from kvsync_testkit.kube import has_writable_volumes

SAMPLES = sorted((Path(__file__).resolve().parents[2] / "config" / "samples").glob("*.yaml"))


def objects_of(path):
    return [obj for obj in yaml.safe_load_all(path.read_text()) if obj]


def needs_claim(obj):
    return obj["spec"].get("snapshot", {}).get("volume") == "PersistentVolumeClaim"


@pytest.mark.parametrize("path", SAMPLES, ids=[path.stem for path in SAMPLES])
def test_the_sample_works_as_it_stands(deploy, namespace, kube, path):
    objects = [obj for obj in objects_of(path) if obj["kind"] in ("MockEngine", "PrefixIndex")]
    assert objects, f"{path.name} contains neither a MockEngine nor a PrefixIndex"
    left_out = [obj for obj in objects if needs_claim(obj) and not has_writable_volumes(kube)]
    applied = [obj for obj in objects if obj not in left_out]
    for obj in applied:
        obj["metadata"]["namespace"] = namespace
        kube.apply(obj)
    for obj in applied:
        wait_condition(kube, obj["kind"], obj["metadata"]["name"], namespace, "Ready=True", deadline_s=120.0)
    for obj in applied:
        name = obj["metadata"]["name"]
        if obj["kind"] == "MockEngine":
            assert len(Engine(kube, namespace, name).pods()) == obj["spec"].get("replicas", 1)
        elif obj["spec"].get("publishers"):  # the listed engines do not exist
            rows = Index(kube, namespace, name).publishers()
            assert {row["name"] for row in rows} == {row["name"] for row in obj["spec"]["publishers"]}
            assert "live" not in {row["state"] for row in rows}
        else:
            wait_condition(kube, "PrefixIndex", name, namespace, "Synced=True", deadline_s=60.0)
    if left_out:
        names = ", ".join(obj["metadata"]["name"] for obj in left_out)
        pytest.skip(f"skipped(capability): no volume that non-root pods can write for {names}; the rest works")


def test_there_are_samples_for_each_use():
    kinds = {obj["kind"] for path in SAMPLES for obj in objects_of(path)}
    assert {"MockEngine", "PrefixIndex"} <= kinds
    assert len(SAMPLES) >= 6
