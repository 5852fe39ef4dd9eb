"""Namespaces for single tests on a real cluster: created with a recognisable label, and deleted afterwards."""

import re
import uuid
from collections.abc import Mapping

from kvsync_testkit.cluster.waits import wait_until
from kvsync_testkit.kube import Kube

TEST_LABEL = "kvsync.dev/test"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
"""The pod security standard that the namespaces of tests enforce unless told otherwise."""


class TestNamespaces:
    """Creates namespaces for one test, with names that begin alike and end at random."""

    __test__ = False

    def __init__(self, kube: Kube, test: str, *, label: str = TEST_LABEL) -> None:
        """Name them after `test`, for example the node name of a pytest item."""
        self.kube = kube
        self.names: list[str] = []
        self._label = label
        self._stem = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_"))[:38].strip("-")

    def create(self, suffix: str = "", *, prefix: str = "e2e", labels: Mapping[str, str] | None = None) -> str:
        """Create a namespace and return its name; `labels` replace the `restricted` pod security standard."""
        name = f"{prefix}-{self._stem}-{uuid.uuid4().hex[:5]}{suffix}"
        more = RESTRICTED if labels is None else labels
        metadata = {"name": name, "labels": {self._label: "true", **more}}
        self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        self.names.append(name)
        return name

    def delete(self) -> None:
        """Delete all of them, without waiting for the end."""
        for name in self.names:
            self.kube.delete("Namespace", name)
        self.names.clear()


def sweep_namespaces(kube: Kube, *, label: str = TEST_LABEL, deadline_s: float = 180.0) -> None:
    """Delete the namespaces of tests, also those of interrupted runs, and wait until they no longer exist.

    Raises:
        DeadlineError: some of them still exist after `deadline_s`.
    """

    def remaining() -> list[str]:
        return [item["metadata"]["name"] for item in kube.objects("Namespace", selector=label)]

    for name in remaining():
        kube.delete("Namespace", name)
    wait_until("the namespaces of the tests no longer exist", lambda: not remaining(), deadline_s=deadline_s)
