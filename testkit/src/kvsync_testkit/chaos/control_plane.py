"""The control plane of a kind cluster on this machine: its operator and its API server, killed, stopped and judged."""

import contextlib
import os
import signal
from pathlib import Path

from kvsync_testkit.chaos.backend import Place
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.podprocs import processes_of
from kvsync_testkit.chaos.system import ENGINE_PODS, NAME
from kvsync_testkit.kube import Kube, KubeError, Object, is_ready
from kvsync_testkit.waiting import wait_until

OPERATOR_PODS = "app.kubernetes.io/name=kvsync-operator"
_OWNED = ("StatefulSet", "Deployment", "Service", "NetworkPolicy", "ServiceAccount")
"""Kinds of which the operator may create objects for an engine."""


class ControlPlane:
    """Breaks the operator and the API server, and says whether the operator has finished its work."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._stopped: list[int] = []

    def operator(self) -> Place:
        """Return where the operator runs now.

        Raises:
            ConnectionError: it does not run, or more than one does.
        """
        try:
            pods = [pod for pod in self._kube.objects("Pod", selector=OPERATOR_PODS) if is_ready(pod)]
        except KubeError as error:
            raise ConnectionError(str(error)) from None
        if len(pods) != 1:
            raise ConnectionError(f"{len(pods)} operators are ready")
        uid = pods[0]["metadata"]["uid"]
        return Place("operator", pods[0]["status"].get("podIP", ""), identity=uid, pids=tuple(processes_of(uid)[0]))

    def kill_operator(self, replicas: int) -> None:
        """Give the operator something to do, and kill it before it can have done it."""
        place = self.operator()
        if not place.pids:
            raise ChaosError("no process of the operator is visible")
        self._kube.scale("MockEngine", NAME, self._namespace, replicas)
        for pid in place.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def wait_converged(self, replicas: int, deadline_s: float = 60.0) -> None:
        """Wait until the engines are what their resource says, its status says so, and nothing else is left.

        Raises:
            DeadlineError: something still differs.
        """

        def converged() -> bool:
            resource = self._kube.get("MockEngine", NAME, self._namespace)
            pods = self._kube.objects("Pod", self._namespace, ENGINE_PODS)
            assert len(pods) == replicas, f"{len(pods)} pods of {replicas}"
            assert all(is_ready(pod) for pod in pods), "not every pod is ready"
            _check_status(resource, replicas)
            self._check_owned(resource)
            return True

        wait_until(
            "the operator has finished its work", converged, deadline_s=deadline_s, every_s=0.5,
            retry_on=(OSError, KubeError, AssertionError, KeyError),
        )  # fmt: skip

    def _check_owned(self, resource: Object) -> None:
        """Each object of the engine belongs to its resource, and there is at most one workload and one of each name."""
        workloads = []
        for kind in _OWNED:
            for found in self._kube.objects(kind, self._namespace, ENGINE_PODS):
                owners = {owner["uid"] for owner in found["metadata"].get("ownerReferences", [])}
                assert owners == {resource["metadata"]["uid"]}, f"{kind} {found['metadata']['name']} has other owners"
                workloads += [found["metadata"]["name"]] if kind in ("StatefulSet", "Deployment") else []
        assert len(workloads) == 1, f"workloads {workloads}"

    def stop_api(self) -> None:
        """Stop the processes of the API server; connections to it stay open, and no answer comes."""
        self._stopped = api_processes()
        if not self._stopped:
            raise CapabilityError("no process of the API server is visible on this machine")
        for pid in self._stopped:
            os.kill(pid, signal.SIGSTOP)

    def resume_api(self, deadline_s: float = 60.0) -> None:
        """Let the API server go on, and wait until it answers."""
        while self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._stopped.pop(), signal.SIGCONT)
        wait_until(
            "the API server answers",
            lambda: bool(self._kube.send("GET", "/readyz", timeout_s=3.0).status == 200),
            deadline_s=deadline_s,
            retry_on=(OSError, KubeError),
        )


def _check_status(resource: Object, replicas: int) -> None:
    status, generation = resource.get("status", {}), resource["metadata"]["generation"]
    assert status.get("observedGeneration") == generation, f"status is of generation {status.get('observedGeneration')}"
    assert status.get("readyReplicas") == replicas, f"status says {status.get('readyReplicas')} ready replicas"
    ready = [one["status"] for one in status.get("conditions", []) if one["type"] == "Ready"]
    assert ready == ["True"], f"condition Ready is {ready}"


def api_processes() -> list[int]:
    """Return the processes of API servers of kind nodes on this machine."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and (folder / "comm").read_text().strip() == "kube-apiserver":
                found.append(int(folder.name))
    return sorted(found)
