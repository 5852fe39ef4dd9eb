"""The CRDs and the operator, installed by helm from the charts of this checkout as a user would install them."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kvsync_testkit.cluster import wait_until
from kvsync_testkit.kube import Kube, Object, cluster_setting, is_ready

NAMESPACE = "kvsync-e2e-system"
RELEASE = "kvsync"
CRDS = ("mockengines.kvsync.dev", "prefixindexes.kvsync.dev")
OPERATOR = "app.kubernetes.io/name=kvsync-operator"


class Installation:
    """An installation of both charts. `images` must be present on the nodes or available for pulling."""

    def __init__(self, kube: Kube, root: Path) -> None:
        self.kube = kube
        self.root = root
        self.namespace = NAMESPACE
        self.tag = os.environ.get("KVSYNC_IMAGE_TAG", "e2e")
        self.prefix = os.environ.get("KVSYNC_IMAGE_PREFIX", "kvsync")
        self.images = {name: self._image(name) for name in ("operator", "mockpod", "indexer")}
        self._upgrades = 0
        self._helm = ""

    def _image(self, name: str) -> str:
        """Return the image under test: the one given for this run, as for mutants, or the one of the common tag."""
        return os.environ.get(f"KVSYNC_E2E_{name.upper()}_IMAGE") or f"{self.prefix}/{name}:{self.tag}"

    def helm(self, *arguments: str, timeout_s: float = 240.0) -> str:
        """Run helm on the cluster and return its output; raise `AssertionError` with its messages if it fails."""
        if not self._helm:
            finder = [str(self.root / "hack" / "lib" / "tools.sh"), "helm"]
            self._helm = subprocess.run(
                finder, stdout=subprocess.PIPE, text=True, check=True, timeout=900
            ).stdout.strip()
        command = [self._helm, "--kubeconfig", str(self.kube.kubeconfig), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr.strip()} {done.stdout[-2000:]}"
        return done.stdout

    def image_values(self) -> list[str]:
        """Return the `--set` arguments that select the images under test."""
        values = []
        for name, image in self.images.items():
            repository, _, tag = image.rpartition(":")
            values += ["--set", f"images.{name}.repository={repository}", "--set", f"images.{name}.tag={tag}"]
        return values

    def install(self) -> None:
        """Install both charts without an index; the operator serves all namespaces. Wait until it is ready."""
        self._refuse_a_second_operator()
        labels = {"pod-security.kubernetes.io/enforce": "restricted", "kvsync.dev/e2e-system": "true"}
        self.kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}}
        )
        charts = self.root / "charts"
        common = ["--namespace", self.namespace, "--wait", "--timeout", "180s"]
        self.helm("upgrade", "--install", f"{RELEASE}-crds", str(charts / "kvsync-crds"), "--take-ownership", *common)
        for name in CRDS:
            wait_until(f"CRD {name} is served", lambda name=name: self._is_served(name), deadline_s=30.0)
        self.helm(
            "upgrade", "--install", RELEASE, str(charts / "kvsync"), *common, *self.image_values(),
            "--set", "operator.allNamespaces=true", "--set", "index.enabled=false",
            "--set", "operator.syncPollSeconds=2", "--set-json", 'operator.crossNamespace=["*=*"]',
        )  # fmt: skip

    def _refuse_a_second_operator(self) -> None:
        for deployment in self.kube.objects("Deployment", selector=OPERATOR):
            where = deployment["metadata"]["namespace"]
            if where != self.namespace and deployment["spec"].get("replicas", 1):
                arguments = deployment["spec"]["template"]["spec"]["containers"][0].get("args", [])
                assert "--all-namespaces" not in arguments, f"the operator in {where} already serves all namespaces"

    def _is_served(self, name: str) -> bool:
        crd = self.kube.get("CustomResourceDefinition", name)
        return any(item["type"] == "Established" and item["status"] == "True" for item in crd["status"]["conditions"])

    def upgrade(self, *extra: str) -> None:
        """Upgrade the release so that the pod of the operator is replaced."""
        self._upgrades += 1
        self.helm(
            "upgrade", RELEASE, str(self.root / "charts" / "kvsync"), "--namespace", self.namespace, "--reuse-values",
            "--set-string", f"operator.podAnnotations.e2e-upgrade={self._upgrades}", "--wait",
            "--timeout", "180s", *extra,
        )  # fmt: skip

    def set_replicas(self, count: int) -> None:
        """Set the number of operators. With 0, the operator of another release can run."""
        self.kube.scale("Deployment", f"{RELEASE}-operator", self.namespace, count)
        wait_until(f"{count} operators run", lambda: len(self._operator_pods()) == count, deadline_s=60.0)
        if count:
            wait_until("the operator is ready", self.operator_pod, deadline_s=60.0)

    def _operator_pods(self) -> list[Object]:
        return self.kube.objects("Pod", self.namespace, f"{OPERATOR},pod-template-hash")

    def operator_pod(self) -> Object:
        """Return the pod of the operator; raise `AssertionError` if none is ready."""
        ready = [pod for pod in self._operator_pods() if is_ready(pod)]
        assert len(ready) == 1, f"{len(ready)} operator pods are ready"
        return ready[0]

    def operator_account(self) -> str:
        return str(self.operator_pod()["spec"]["serviceAccountName"])

    def uninstall(self) -> None:
        """Uninstall both releases. The CRDs remain because of the keep policy of their chart."""
        self.helm("uninstall", RELEASE, "--namespace", self.namespace, "--ignore-not-found", "--wait")
        self.helm("uninstall", f"{RELEASE}-crds", "--namespace", self.namespace, "--ignore-not-found", "--wait")
        self.kube.delete("Namespace", self.namespace)
        wait_until(
            "the system namespace no longer exists",
            lambda: not self.kube.find("Namespace", self.namespace),
            deadline_s=90.0,
        )

    def network_policy_gap(self) -> str:
        """Return why the denial of connections cannot be tested; empty if the pod network enforces NetworkPolicy."""
        agents = ("kindnet", "calico", "cilium", "antrea", "weave", "kube-router", "ovn", "kube-network-policies")
        running = [pod["metadata"]["name"] for pod in self.kube.objects("Pod", "kube-system") if is_ready(pod)]
        if any(name.startswith(agents) for name in running):
            return ""
        gap = cluster_setting(self.root, "KVSYNC_POLICY_GAP")
        return gap or "the pod network does not enforce NetworkPolicy (no agent that does runs in kube-system)"

    def samples(self) -> list[Object]:
        """Return every object of config/samples."""
        return [obj for path in sorted((self.root / "config" / "samples").rglob("*.yaml")) for obj in _documents(path)]


def _documents(path: Path) -> Iterator[Any]:
    yield from (obj for obj in yaml.safe_load_all(path.read_text()) if obj)
