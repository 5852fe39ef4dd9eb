"""The backend for a cluster without Chaos Mesh: the API server, and the node's kernel where this machine can reach it.

Pods are deleted and patched through the API. Packets, processes and control groups are changed from this machine, which
sees the processes of a kind node; on another cluster those faults are skipped. The operator must be installed.
"""

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from kvsync_testkit.chaos import means
from kvsync_testkit.chaos.backend import Place, Remembered
from kvsync_testkit.chaos.errors import CapabilityError, ChaosError
from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.means import Means
from kvsync_testkit.chaos.podprocs import processes_of
from kvsync_testkit.chaos.system import ENGINE_PODS, ENGINES, INDEX_PODS, NAME, build_namespace, build_system
from kvsync_testkit.kube import Answer, Kube, KubeError, Object, is_ready
from kvsync_testkit.waiting import wait_until

NAMESPACE = "kvsync-chaos"
FAILED_IMAGE = "kvsync.invalid/failed:1"
_CACHE_S = 0.5


class ClusterBackend(Remembered):
    """Three engine pods and an index pod, which contains the router."""

    name = "kubernetes"

    def __init__(self, kube: Kube, namespace: str = NAMESPACE) -> None:
        self.kube, self.namespace = kube, namespace
        self._means = Means()
        self._shape: tuple[int, bool] | None = None
        self._pods: tuple[float, dict[str, Object]] = (0.0, {})
        self._images: dict[str, str] = {}

    def preflight(self, fault: Fault) -> None:
        """Raise CapabilityError if the fault cannot be injected on this cluster from this machine."""
        if fault.kind == "clock":
            raise CapabilityError("the clock of a container cannot be changed from outside (needs TimeChaos's helper)")
        if fault.kind == "io":
            raise CapabilityError("no file system that delays is available (needs IOChaos's helper)")
        if fault.kind not in ("replace", "failure"):
            means.preflight(fault)

    # bringing it up and down

    def start(self, fault: Fault) -> None:
        """Create the system with the settings of the fault, unless it runs."""
        self._pair = None
        shape = (fault.buffer_steps, fault.tiers)
        if shape != self._shape:
            self._remove()
            self.kube.apply(build_namespace(self.namespace))
            for resource in build_system(fault, self.namespace):
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
        if time.monotonic() - at > _CACHE_S:
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
        """Return where the pod runs now."""
        self._pods = (0.0, {})
        pod = self._pod(name)
        uid = pod["metadata"]["uid"]
        containers, holders = processes_of(uid)
        inside = ("nsenter", "-t", str(holders[0]), "-n") if holders else ()
        namespace = f"/proc/{holders[0]}/ns/net" if holders else ""
        port = 8090 if name == "index" else 8000
        return Place(name, pod["status"].get("podIP", ""), inside, uid, tuple(containers), port, namespace=namespace)

    def router_shares_index(self) -> bool:
        """Return True: the operator runs the router in the process of the index."""
        return True

    def call(self, target: str, method: str, path: str, body: object = None, *, timeout_s: float = 10.0) -> Answer:
        """Send a request through the API server."""
        if target == "router":
            where = self.kube.service_path(self.namespace, f"{NAME}-router", "router", path)
        elif target == "index":
            where = self.kube.pod_path(self.namespace, self._pod("index")["metadata"]["name"], 8090, path)
        else:
            where = self.kube.pod_path(self.namespace, target, 8000, path)
        head, _, query = where.partition("?")
        pairs = dict(item.split("=", 1) for item in query.split("&") if item)
        return self.kube.send(method, head, body, query=pairs or None, timeout_s=timeout_s)

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


def _kill(place: Place) -> None:
    if not place.pids:
        raise ChaosError(f"no process of {place.name} is visible")
    for pid in place.pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
