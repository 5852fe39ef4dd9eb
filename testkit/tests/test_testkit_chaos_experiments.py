"""The experiment documents: fields of the pinned Chaos Mesh, rules of its webhooks, and a target for each selector."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from kvsync_operator.models.document import parse_resource
from kvsync_operator.objects import Images, build_objects
from kvsync_testkit.chaos.errors import ManifestError
from kvsync_testkit.chaos.faults import FAULTS
from kvsync_testkit.chaos.manifests import (
    check_rules,
    check_schema,
    experiments,
    read_documents,
    read_schemas,
    selects,
)
from kvsync_testkit.chaos.system import build_system

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "test" / "chaos" / "experiments"
DOCUMENTS = [document for _, document in read_documents(FOLDER)]
NAMES = [document["metadata"]["name"] for document in DOCUMENTS]
REQUIRED = {
    "partition", "loss-50", "delay-500ms", "bandwidth-1mbit",
    "pod-kill", "pod-failure", "container-kill", "cpu-stress", "memory-stress", "io-delay",
    "events-port-blocked", "replay-port-blocked", "events-corrupted", "events-duplicated", "clock-skew",
}  # fmt: skip


def named(name: str) -> dict:
    (found,) = (document for document in DOCUMENTS if document["metadata"]["name"] == name)
    return json.loads(json.dumps(found))


@pytest.fixture(scope="module")
def schemas():
    """The CRDs in the folder of the pinned Go module."""
    if shutil.which("go") is None:
        pytest.skip("skipped(capability): Go is not installed, and the CRDs come from the Go module of Chaos Mesh")
    pins = dict(
        line.split("=", 1) for line in (ROOT / "hack/airgap/versions.env").read_text().splitlines() if "=" in line
    )
    module = f"github.com/chaos-mesh/chaos-mesh@{pins['CHAOS_MESH_MODULE']}"
    command = ["go", "mod", "download", "-json", module]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=100, check=False)
    if done.returncode != 0:
        pytest.skip(
            f"skipped(capability): the Go module cannot be downloaded: {done.stdout[-200:]}{done.stderr[-200:]}"
        )
    return read_schemas(Path(json.loads(done.stdout)["Dir"]) / "helm" / "chaos-mesh" / "crds")


def pods() -> list[dict[str, str]]:
    """The labels of the pods that the operator creates for the system under test."""
    found = []
    for document in build_system(FAULTS[0], "kvsync-chaos"):
        for built in build_objects(parse_resource(document), Images()):
            template = built.get("spec", {}).get("template")
            if template:
                found.append(template["metadata"]["labels"])
    return found


def test_there_is_one_document_per_fault_and_the_runner_knows_each():
    assert set(experiments(FOLDER)) == REQUIRED
    assert {fault.name for fault in FAULTS} >= REQUIRED
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_a_document_keeps_the_rules(name):
    check_rules(named(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_document_has_only_fields_of_the_pinned_release(name, schemas):
    check_schema(named(name), schemas)


@pytest.mark.parametrize("name", NAMES)
def test_a_selector_finds_a_pod_of_the_operator(name):
    assert any(selects(named(name), labels) for labels in pods())


def test_the_containers_that_are_killed_exist():
    names = {
        container["name"]
        for document in build_system(FAULTS[0], "kvsync-chaos")
        for built in build_objects(parse_resource(document), Images())
        for container in built.get("spec", {}).get("template", {}).get("spec", {}).get("containers", [])
    }
    assert set(named("container-kill")["spec"]["containerNames"]) <= names


def broken(name: str, path: str, value: object) -> dict:
    """A document with one field changed; the path is written with dots, and None removes the field."""
    document = named(name)
    *parents, last = path.split(".")
    node = document
    for key in parents:
        node = node[key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return document


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (broken("bandwidth-1mbit", "spec.bandwidth.rate", "1mbps"), "1mbps is a megabyte"),
        (broken("bandwidth-1mbit", "spec.bandwidth.limit", 0), "bandwidth.limit must be at least 1"),
        (broken("loss-50", "spec.loss.loss", 50), "must be a percentage as a string"),
        (broken("loss-50", "spec.loss.loss", "fifty"), "must be a percentage as a string"),
        (broken("loss-50", "spec.loss.correlation", None), "correlation is not set"),
        (broken("delay-500ms", "spec.delay.latency", "500"), "'500' is not a duration"),
        (broken("container-kill", "spec.containerNames", []), "needs containerNames"),
        (broken("cpu-stress", "spec.stressors.cpu.workers", 0), "workers must be at least 1"),
        (broken("events-port-blocked", "spec.externalTargets", ["0.0.0.0/0:5557"]), "every address"),
        (broken("events-port-blocked", "spec.externalTargets", ["fd00::/8"]), "not an IPv4 address"),
        (broken("events-port-blocked", "spec.externalTargets", ["10.244.0.0/16:99999"]), "no valid port"),
        (broken("events-port-blocked", "spec.target", {"mode": "all"}), "without target"),
        (broken("partition", "spec.target", None), "direction both needs a target"),
        (broken("pod-kill", "spec.selector.namespaces", []), "any pod of the cluster"),
        (broken("nightly-partition", "spec.networkChaos.duration", "half an hour"), "is not a duration"),
        (broken("nightly-partition", "spec.type", "PodChaos"), "needs the field podChaos"),
    ],
)
def test_what_the_webhooks_refuse_is_refused_here(document, reason):
    with pytest.raises(ManifestError, match=reason):
        check_rules(document)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (broken("partition", "spec.directions", "both"), "directions"),
        (broken("loss-50", "spec.loss.lost", "50"), "lost"),
        (broken("pod-kill", "spec.action", "pod-kil"), "pod-kil"),
        (broken("nightly-pod-kill", "spec.podChaos.grace", 0), "grace"),
        (broken("cpu-stress", "kind", "StresChaos"), "has no StresChaos"),
    ],
)
def test_a_misspelt_field_is_refused_and_not_pruned(document, reason, schemas):
    with pytest.raises(ManifestError, match=reason):
        check_schema(document, schemas)


def test_every_file_is_plain_yaml_with_one_object_per_document():
    for file in FOLDER.glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            assert document["metadata"]["namespace"] == "kvsync-chaos"
