"""The system under test as custom resources: three mock engines, and an index with a router."""

from typing import Any

from kvsync_testkit.chaos.faults import Fault
from kvsync_testkit.chaos.load import MODEL

NAME = "chaos"
ENGINES = 3
ENGINE_PODS = f"kvsync.dev/engine={NAME}"
INDEX_PODS = f"kvsync.dev/index={NAME}"


def build_system(fault: Fault, namespace: str) -> list[dict[str, Any]]:
    """Return the resources that the fault needs."""
    meta = {"name": NAME, "namespace": namespace}
    cache: dict[str, Any] = {"numGpuBlocks": 256}
    if fault.tiers:
        cache["hostOffload"] = {"blocks": 512, "transfers": "Instant"}
    engine = {
        "replicas": ENGINES,
        "model": {"name": MODEL},
        "cache": cache,
        "scheduler": {"maxModelLen": 1024},
        "events": {"bufferSteps": fault.buffer_steps},
        "debug": "Enabled",
        "terminationGrace": "1s",
    }
    index = {"sync": {"staleAfter": "5s", "replayTimeout": "2s"}, "router": {}}
    api = "kvsync.dev/v1alpha1"
    return [
        {"apiVersion": api, "kind": "MockEngine", "metadata": meta, "spec": engine},
        {"apiVersion": api, "kind": "PrefixIndex", "metadata": meta, "spec": index},
    ]


def build_namespace(name: str) -> dict[str, Any]:
    """Return the namespace, in which Chaos Mesh may act."""
    annotations = {"chaos-mesh.org/inject": "enabled"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "annotations": annotations}}
