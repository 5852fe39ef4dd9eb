"""The backend for a cluster with Chaos Mesh: one experiment document per fault, proved and judged like all others.

An experiment whose qdisc the kernel lacks fails and spoils its pod for later experiments. So the kernel is asked first,
and such an experiment is never submitted.
"""

import contextlib
import subprocess
from collections.abc import Mapping
from typing import Any

from kvsync_testkit.chaos.backend import Pair
from kvsync_testkit.chaos.cluster import NAMESPACE, ClusterBackend
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.kube import Kube, KubeError, Object, condition
from kvsync_testkit.waiting import DeadlineError, wait_until

PAUSE = "experiment.chaos-mesh.org/pause"
FORCED = {"metadata": {"annotations": {"chaos-mesh.chaos-mesh.org/cleanFinalizer": "forced"}}}
_NETEM_ACTIONS = frozenset({"delay", "loss", "corrupt", "duplicate", "reorder"})
_HELPERS = {
    "IOChaos": "toda",
    "TimeChaos": "the injected clock image",
    "HTTPChaos": "tproxy",
    "DNSChaos": "k8s_dns_chaos",
}


class MeshBackend(ClusterBackend):
    """Applies the documents of `test/chaos/experiments`."""

    name = "chaos-mesh"

    def __init__(self, kube: Kube, documents: Mapping[str, Object], note: str, namespace: str = NAMESPACE) -> None:
        super().__init__(kube, namespace)
        self.note = note
        self._documents = documents
        self._applied: Object | None = None

    def preflight(self, fault: Fault) -> None:
        """Raise CapabilityError if there is no experiment for the fault, or something that it needs is missing."""
        document = self._documents.get(fault.name)
        if document is None:
            raise CapabilityError("no experiment of Chaos Mesh does this; the other backends run it")
        if document["kind"] in _HELPERS:
            raise CapabilityError(f"{document['kind']} needs {_HELPERS[document['kind']]}, which this Chaos Mesh lacks")
        if document["kind"] == "NetworkChaos":
            self._require_qdiscs(document["spec"])

    def _require_qdiscs(self, spec: Mapping[str, Any]) -> None:
        wanted = []
        if spec["action"] in _NETEM_ACTIONS:
            wanted = ["netem", "prio", "sfq"]
        elif spec["action"] == "bandwidth":
            wanted = ["tbf", "prio", "sfq"] if "target" in spec else ["tbf"]
        missing = [name for name in wanted if not _has_qdisc(name)]
        if missing:
            raise CapabilityError(f"the kernel has no {', '.join(f'sch_{name}' for name in missing)}")

    def cuts_both_ways(self, fault: Fault) -> bool:
        """Return False for a blocked port: what comes in is dropped, and some events still go out unacknowledged."""
        return fault.kind != "port_blocked"

    def apply(self, fault: Fault) -> None:
        """Create the experiment."""
        document = dict(self._documents[fault.name])
        document["metadata"] = {"name": fault.name, "namespace": self.namespace}
        self._delete(document)
        self._applied = self.kube.apply(document)

    def injected(self, fault: Fault) -> bool:
        """Return whether targets were selected and every record has been injected at least once."""
        assert self._applied is not None
        now = self.kube.get(self._applied["kind"], fault.name, self.namespace)
        records = _records(now)
        if condition(now, "Selected")["status"] != "True" or not records:
            return False
        done = condition(now, "AllInjected")["status"] == "True" or not fault.lasting
        if not done or not all(record.get("injectedCount", 0) >= 1 for record in records):
            return False
        engine = next(record["id"].split("/")[1] for record in records if record.get("selectorKey", ".") == ".")
        others = [name for name in self.engines() if name != engine]
        if self._pair is None:
            self._pair = Pair(engine, others[0])
            self.set_plan(engine, fault)
        return True

    def heal(self, fault: Fault) -> None:
        """Have the experiment recovered, wait until every record says so, and ask for its deletion."""
        if self._applied is None:
            return
        applied, self._applied = self._applied, None
        try:
            self.clear_plan(fault)
            if fault.lasting:
                change = {"metadata": {"annotations": {PAUSE: "true"}}}
                self.kube.patch(applied["kind"], fault.name, self.namespace, change)
                wait_until(
                    f"{fault.name} is recovered",
                    lambda: self._is_recovered(applied["kind"], fault.name),
                    deadline_s=30.0,
                    retry_on=(OSError, KubeError),
                )
        finally:
            self.kube.delete(applied["kind"], fault.name, self.namespace)

    def _is_recovered(self, kind: str, name: str) -> bool:
        now = self.kube.get(kind, name, self.namespace)
        counted = all(record.get("recoveredCount", 0) >= 1 for record in _records(now))
        return counted and condition(now, "AllRecovered")["status"] == "True"

    def _delete(self, document: Object) -> None:
        kind, name = document["kind"], document["metadata"]["name"]
        with contextlib.suppress(KubeError):
            self.kube.delete(kind, name, self.namespace)
        try:
            wait_until(f"{name} is deleted", lambda: not self.kube.find(kind, name, self.namespace), deadline_s=20.0)
        except DeadlineError:
            self.kube.patch(kind, name, self.namespace, FORCED)
            raise ChaosError(f"the finalizer of {name} had to be removed by force") from None

    def stop(self) -> None:
        """Delete what is left of an experiment, and the namespace."""
        if self._applied is not None:
            with contextlib.suppress(ChaosError, KubeError, OSError):
                self._delete(self._applied)
        super().stop()


def _records(experiment: Object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = experiment.get("status", {}).get("experiment", {}).get("containerRecords") or []
    return found


def _has_qdisc(name: str) -> bool:
    options = {"netem": "delay 1ms", "tbf": "rate 1mbit burst 32kb latency 100ms"}.get(name, "")
    command = f"tc qdisc add dev lo root {name} {options}"
    return subprocess.run(["unshare", "--net", "sh", "-c", command], capture_output=True, check=False).returncode == 0
