"""The system under test as custom resources: three mock engines, and an index with a router."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.load import MODEL

NAME = "chaos"
ENGINES = 3
SNAPSHOTS = "/var/lib/kvsync"
"""Folder of the snapshot volume in the pod of the index."""
ENGINE_ENV = {"VLLM_SERVER_DEV_MODE": "1"}
"""Lets a test reset the cache of an engine."""
ENGINE_PODS = f"kvsync.dev/engine={NAME}"
INDEX_PODS = f"kvsync.dev/index={NAME}"


@dataclass(frozen=True)
class Shape:
    """What of a system depends on the fault. Faults of the same shape share a running system."""

    buffer_steps: int
    tiers: bool
    proxied: bool
    clock: bool
    snapshot: bool

    @classmethod
    def of(cls, fault: Fault) -> "Shape":
        """Return the shape that a fault needs."""
        return cls(fault.buffer_steps, fault.tiers, fault.kind == "delay", fault.kind == "clock", fault.kind == "io")


def build_system(
    fault: Fault, namespace: str, *, index_image: str = "", index_env: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Return the resources that the fault needs; a test may run another image of the index, or set its environment."""
    shape = Shape.of(fault)
    meta = {"name": NAME, "namespace": namespace}
    cache: dict[str, Any] = {"numGpuBlocks": 256}
    if shape.tiers:
        cache["hostOffload"] = {"blocks": 512, "transfers": "Instant"}
    engine = {
        "replicas": ENGINES,
        "model": {"name": MODEL},
        "cache": cache,
        "scheduler": {"maxModelLen": 1024},
        "events": {"bufferSteps": shape.buffer_steps},
        "debug": "Enabled",
        "terminationGrace": "1s",
        "template": {"env": [{"name": name, "value": value} for name, value in ENGINE_ENV.items()]},
    }
    index: dict[str, Any] = {"sync": {"staleAfter": "5s", "replayTimeout": "2s"}, "router": {}}
    if shape.snapshot:
        index["snapshot"] = {"volume": "EmptyDir", "size": "64Mi"}
    template: dict[str, Any] = {"image": index_image} if index_image else {}
    if index_env:
        template["env"] = [{"name": name, "value": value} for name, value in index_env.items()]
    if template:
        index["template"] = template
    api = "kvsync.dev/v1alpha1"
    return [
        {"apiVersion": api, "kind": "MockEngine", "metadata": meta, "spec": engine},
        {"apiVersion": api, "kind": "PrefixIndex", "metadata": meta, "spec": index},
    ]


def build_namespace(name: str) -> dict[str, Any]:
    """Return the namespace, in which Chaos Mesh may act."""
    annotations = {"chaos-mesh.org/inject": "enabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}
