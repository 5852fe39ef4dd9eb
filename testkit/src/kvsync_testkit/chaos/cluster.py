"""The backend for a cluster without Chaos Mesh: the API server, and the node's kernel where this machine can reach it.

Pods are deleted and patched through the API. Packets, processes and control groups are changed from this machine, which
sees the processes of a kind node; on another cluster those faults are skipped. The operator must be installed.
"""

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kvsync_testkit.chaos import means, web
from kvsync_testkit.chaos.backend import Place, Remembered
from kvsync_testkit.chaos.control_plane import ControlPlane
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.means import Means
from kvsync_testkit.chaos.netns import call_inside
from kvsync_testkit.chaos.podprocs import processes_of
from kvsync_testkit.chaos.system import (
    ENGINE_PODS,
    ENGINES,
    INDEX_PODS,
    NAME,
    SNAPSHOTS,
    Shape,
    build_namespace,
    build_system,
)
from kvsync_testkit.kube import Answer, Kube, KubeError, Object, is_ready
from kvsync_testkit.waiting import DeadlineError, wait_until

NAMESPACE = "kvsync-chaos"
FAILED_IMAGE = "kvsync.invalid/failed:1"
_CACHE_S = 0.5
_PORTS = {"index": 8090, "router": 8080}
"""Ports in the pod of the index; an engine serves 8000."""


class ClusterBackend(Remembered):
    """Three engine pods and an index pod, which contains the router."""

    name = "kubernetes"

    def __init__(self, kube: Kube, namespace: str = NAMESPACE) -> None:
        self.kube, self.namespace = kube, namespace
        self.index_image = ""
        """Another image of the index; a test may plant a bug with it."""
        self.index_env: Mapping[str, str] = {}
        self._means = Means()
        self._control = ControlPlane(kube, namespace)
        self._shape: tuple[Shape, str, tuple[tuple[str, str], ...]] | None = None
        self._pods: tuple[float, dict[str, Object]] = (0.0, {})
        self._directly = False
        """Components are called in the network of the pods, because the API server may not answer."""
        self._frozen = False
        """The pods are those that were listed last."""
        self._images: dict[str, str] = {}

    def preflight(self, fault: Fault) -> None:
        """Raise CapabilityError if the fault cannot be injected on this cluster from this machine."""
        if fault.kind == "clock":
            raise CapabilityError("the clock of a container cannot be changed from outside (needs TimeChaos's helper)")
        if fault.kind not in ("replace", "failure"):
            means.preflight(fault)

    # bringing it up and down

    def start(self, fault: Fault) -> None:
        """Create the system with the settings of the fault, unless it runs."""
        self._pair = None
        self._directly = fault.kind == "api_outage"
        shape = (Shape.of(fault), self.index_image, tuple(self.index_env.items()))
        if shape != self._shape:
            self._remove()
            self.kube.apply(build_namespace(self.namespace))
            for resource in build_system(fault, self.namespace, index_image=self.index_image, index_env=self.index_env):
                self.kube.apply(resource)
            self._shape = shape
        wait_until("the system is ready", self._ready, deadline_s=180.0, retry_on=(OSError, KubeError))
        if not processes_of(self._pod("index")["metadata"]["uid"])[0]:
            raise CapabilityError("the processes of the pods are not visible on this machine (the node is not kind's)")

    def _ready(self) -> bool:
        self._pods = (0.0, {})
        pods = self._listed()
        engines = [pod for pod in pods.values() if "kvsync.dev/engine" in pod["metadata"]["labels"]]
        return len(engines) == ENGINES and len(pods) == ENGINES + 1 and all(is_ready(pod) for pod in pods.values())

    def _remove(self) -> None:
        for kind in ("PrefixIndex", "MockEngine"):
            self.kube.delete(kind, NAME, self.namespace)
        wait_until(
            "the pods of the last system are gone",
            lambda: (
                not self.kube.objects("Pod", self.namespace, ENGINE_PODS)
                and not self.kube.objects("Pod", self.namespace, INDEX_PODS)
            ),
            deadline_s=90.0,
            every_s=0.5,
            retry_on=(OSError, KubeError),
        )

    def stop(self) -> None:
        """Delete the namespace."""
        with contextlib.suppress(ChaosError):
            self._means.heal()
        with contextlib.suppress(ChaosError, DeadlineError):
            self._control.resume_api()
        with contextlib.suppress(KubeError, OSError):
            self._remove()
            self.kube.delete("Namespace", self.namespace)
        self.kube.close()

    def discard(self) -> None:
        """Create a fresh system for the next fault."""
        self._shape = None

    # what runs

    def _listed(self) -> dict[str, Object]:
        """Return the pods that are not terminating, by name, at most half a second old; the index as `index`."""
        at, pods = self._pods
        if not self._frozen and time.monotonic() - at > _CACHE_S:
            try:
                listed = self.kube.objects("Pod", self.namespace, "app.kubernetes.io/part-of=kvsync")
            except KubeError as error:
                raise ConnectionError(str(error)) from None
            pods = {}
            for pod in listed:
                if "deletionTimestamp" not in pod["metadata"]:
                    is_index = "kvsync.dev/index" in pod["metadata"]["labels"]
                    pods["index" if is_index else pod["metadata"]["name"]] = pod
            self._pods = (time.monotonic(), pods)
        return pods

    def _pod(self, name: str) -> Object:
        try:
            return self._listed()[name]
        except KeyError:
            raise ConnectionError(f"there is no pod {name}") from None

    def engines(self) -> Sequence[str]:
        """Return the names of the engine pods that are not terminating."""
        return sorted(name for name in self._listed() if name != "index")

    def place(self, name: str) -> Place:
        """Return where the pod, or the `operator`, runs now."""
        if name == "operator":
            return self._control.operator()
        self._pods = (0.0, self._pods[1])
        pod = self._pod(name)
        uid = pod["metadata"]["uid"]
        containers, holders = processes_of(uid)
        inside = ("nsenter", "-t", str(holders[0]), "-n") if holders else ()
        namespace = f"/proc/{holders[0]}/ns/net" if holders else ""
        volume = f"/proc/{containers[0]}/root{SNAPSHOTS}" if containers else ""
        return Place(
            name, pod["status"].get("podIP", ""), inside, uid, tuple(containers), _PORTS.get(name, 8000),
            namespace=namespace, volume=volume if name == "index" and Path(volume).is_dir() else "",
        )  # fmt: skip

    def router_shares_index(self) -> bool:
        """Return True: the operator runs the router in the process of the index."""
        return True

    def call(self, target: str, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> Answer:
        """Send a request through the API server, or from the network of the index pod; to the API server as `api`."""
        if target == "api":
            return self.kube.send(method, path, body, timeout_s=timeout_s)
        if self._directly:
            return self._call_directly(target, method, path, body, timeout_s)
        if target == "router":
            where = self.kube.service_path(self.namespace, f"{NAME}-router", "router", path)
        elif target == "index":
            where = self.kube.pod_path(self.namespace, self._pod("index")["metadata"]["name"], _PORTS["index"], path)
        else:
            where = self.kube.pod_path(self.namespace, target, 8000, path)
        head, _, query = where.partition("?")
        pairs = dict(item.split("=", 1) for item in query.split("&") if item)
        return self.kube.send(method, head, body, query=pairs or None, timeout_s=timeout_s)

    def _call_directly(self, target: str, method: str, path: str, body: object, timeout_s: float) -> Answer:
        address = self._pod("index" if target == "router" else target)["status"].get("podIP", "")
        _, holders = processes_of(self._pod("index")["metadata"]["uid"])
        if not address or not holders:
            raise ConnectionError(f"{target} has no address, or the index no process")
        port = _PORTS.get(target, 8000)
        return call_inside(
            f"/proc/{holders[0]}/ns/net", lambda: web.send(address, port, method, path, body, timeout_s=timeout_s)
        )

    # faults

    def apply(self, fault: Fault) -> None:
        """Inject the fault."""
        self._pair = self.pair(fault)
        engine = self._pair.affected
        self.set_plan(engine, fault)
        if fault.kind == "kill":
            _kill(self.place(engine))
        elif fault.kind == "index_kill":
            _kill(self.place("index"))
        elif fault.kind == "replace":
            self.kube.delete("Pod", engine, self.namespace, grace_s=0)
        elif fault.kind == "failure":
            self._images[engine] = str(self._pod(engine)["spec"]["containers"][0]["image"])
            self._set_image(engine, FAILED_IMAGE)
        elif fault.kind == "reset":
            self.reset_cache(engine)
        elif fault.kind == "operator_kill":
            self._control.kill_operator(ENGINES + 1)
        elif fault.kind == "api_outage":
            self._frozen = True
            self._control.stop_api()
        elif fault.kind != "plane":
            self._means.inject(fault, self.place(engine), self.place("index"))

    def _set_image(self, pod: str, image: str) -> None:
        container = self._pod(pod)["spec"]["containers"][0]["name"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}"
        change = {"spec": {"containers": [{"name": container, "image": image}]}}
        kind = "application/strategic-merge-patch+json"
        self.kube.call("PATCH", path, change, content_type=kind)

    def injected(self, fault: Fault) -> bool:
        """Return True: the commands have succeeded, and the probe waits for their effect."""
        del fault
        return True

    def heal(self, fault: Fault) -> None:
        """Take the fault away."""
        self.clear_plan(fault)
        for pod, image in self._images.items():
            self._set_image(pod, image)
        self._images.clear()
        self._means.heal()
        if fault.kind == "api_outage":
            self._control.resume_api()
            self._frozen = False
        elif fault.kind == "operator_kill":
            self._control.wait_converged(ENGINES + 1)
            self.discard()  # the next fault is given its own number of engines


def _kill(place: Place) -> None:
    if not place.pids:
        raise ChaosError(f"no process of {place.name} is visible")
    for pid in place.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
