"""Fixtures: the cluster and the installation of the session, a namespace per test, and the records of failures."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_engines import Engine, build_engine
from e2e_index import Index, build_index
from e2e_install import Installation

from kvsync_testkit.cluster import TestNamespaces, dump_namespace, sweep_namespaces
from kvsync_testkit.kube import Kube, Object, cluster_setting, find_kubeconfig, has_writable_volumes

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ.get("KVSYNC_E2E_OUT") or ROOT / "out" / "e2e")
NAMESPACE_LABEL = "kvsync.dev/e2e"
KEEP = bool(os.environ.get("KVSYNC_E2E_KEEP"))
_results: list[dict[str, Any]] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.e2e)
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(360))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    setattr(item, f"report_{report.when}", report)
    if report.when == "call" or not report.passed:
        _results.append(
            {
                "test": item.nodeid,
                "phase": report.when,
                "outcome": report.outcome,
                "reason": _reason(report),
                "duration_s": round(report.duration, 1),
            }
        )
    return report


def _reason(report: pytest.TestReport) -> str:
    """Return the reason for a skip, or the message of a failure."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message)[:2000] if crash is not None else ""


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _results:
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / "report.json").write_text(json.dumps(_results, indent=2) + "\n")


@pytest.fixture(scope="session")
def kube() -> Iterator[Kube]:
    """The cluster of KUBECONFIG or of `make cluster-up`. Without a cluster every test is an error, not a skip."""
    connection = Kube(find_kubeconfig(ROOT))
    connection.call("GET", "/readyz")
    yield connection
    connection.close()


@pytest.fixture(scope="session")
def installation(kube: Kube) -> Iterator[Installation]:
    """The CRDs and the operator, installed by helm as a user would, and uninstalled at the end."""
    sweep_namespaces(kube, label=NAMESPACE_LABEL)
    install = Installation(kube, ROOT)
    install.install()
    yield install
    if not KEEP:
        sweep_namespaces(kube, label=NAMESPACE_LABEL)
        install.uninstall()


class Deploy:
    """Creates namespaces, engines and indexes for one test."""

    def __init__(self, kube: Kube, installation: Installation, test: str) -> None:
        self.kube = kube
        self.installation = installation
        self.namespaces = TestNamespaces(kube, test, label=NAMESPACE_LABEL)

    def namespace(self, suffix: str = "") -> str:
        """Create a namespace that enforces the `restricted` pod security standard."""
        return self.namespaces.create(suffix)

    def engine(self, name: str, namespace: str, **spec: Any) -> Engine:
        self.kube.apply(build_engine(name, namespace, **spec))
        return Engine(self.kube, namespace, name)

    def index(self, name: str, namespace: str, **spec: Any) -> Index:
        self.kube.apply(build_index(name, namespace, **spec))
        return Index(self.kube, namespace, name)


@pytest.fixture
def deploy(kube: Kube, installation: Installation, request: pytest.FixtureRequest) -> Iterator[Deploy]:
    """Creates the objects of one test; they are dumped to out/e2e if the test fails, and deleted afterwards."""
    maker = Deploy(kube, installation, request.node.name)
    yield maker
    report = getattr(request.node, "report_call", None)
    if report is None or report.failed:
        folder = OUT / request.node.name.replace("/", "-")
        for namespace in maker.namespaces.names:
            dump_namespace(kube, namespace, folder / namespace)
        dump_namespace(kube, installation.namespace, folder / installation.namespace)
    if not KEEP:
        maker.namespaces.delete()


@pytest.fixture
def namespace(deploy: Deploy) -> str:
    """A namespace for this test."""
    return deploy.namespace()


@pytest.fixture(scope="session")
def cluster_kind() -> str:
    """`airgap`, `released` or `given`."""
    return cluster_setting(ROOT, "KVSYNC_CLUSTER") or "given"


@pytest.fixture(scope="session")
def policy_gap(installation: Installation) -> str:
    """Empty if the pod network enforces NetworkPolicy, otherwise the reason for which denial cannot be tested."""
    return installation.network_policy_gap()


@pytest.fixture
def volume_class(kube: Kube, cluster_kind: str) -> Iterator[str]:
    """A storage class with volumes that non-root pods can write: the default (''), or one for a folder of the node."""
    if has_writable_volumes(kube):
        yield ""
        return
    if cluster_kind != "airgap":
        pytest.skip("skipped(capability): only root can write to volumes of the default storage class")
    (node, *_) = kube.objects("Node")
    name = f"e2e-{uuid.uuid4().hex[:8]}"
    folder = f"/var/local/{name}"
    on_node = ["docker", "exec", node["metadata"]["name"]]
    subprocess.run([*on_node, "install", "-d", "-m", "0777", folder], check=True, timeout=30)
    for obj in _local_volume(name, folder, node["metadata"]["labels"]["kubernetes.io/hostname"]):
        kube.apply(obj)
    yield name
    kube.delete("PersistentVolume", name)
    kube.delete("StorageClass", name)
    subprocess.run([*on_node, "rm", "-rf", folder], check=True, timeout=30)


def _local_volume(name: str, folder: str, hostname: str) -> list[Object]:
    """Build a volume in a folder of the node, and its storage class."""
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [hostname]}]}]
    spec = {
        "storageClassName": name,
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": folder},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
    }
    storage = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}}
    volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
    return [{**storage, "provisioner": "kubernetes.io/no-provisioner"}, volume]


@pytest.fixture
def report_file() -> Any:
    """A function that writes a report to out/e2e."""

    def write(name: str, text: str) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        (OUT / name).write_text(text)

    return write
