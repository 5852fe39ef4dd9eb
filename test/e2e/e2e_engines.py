"""Mock engines: their resources, their pods, and their block tables, which are the ground truth of the suite."""

import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from kvsync_testkit.cluster import wait_until
from kvsync_testkit.kube import Kube, KubeError, Object, is_ready

API = "kvsync.dev/v1alpha1"
HTTP = 8000
BLOCK = 16

Row = tuple[str, str, int | None]
"""A resident block: its hash in the engine, its medium, and its KV cache group."""


def build_engine(name: str, namespace: str, *, model: str = "", replicas: int = 1, **spec: Any) -> Object:
    """Build a MockEngine with debug endpoints and a short termination grace; `spec` replaces its top-level fields."""
    model_spec = spec.pop("model_spec", {})
    body = {
        "replicas": replicas,
        "model": {"name": model or name, **model_spec},
        "debug": "Enabled",
        "terminationGrace": "1s",
        **spec,
    }
    return {"apiVersion": API, "kind": "MockEngine", "metadata": {"name": name, "namespace": namespace}, "spec": body}


def tokens_of(seed: object, count: int) -> list[int]:
    """Return `count` token ids that depend only on the seed; some of them need more than 16 bits."""
    chance = random.Random(str(seed))
    return [chance.randrange(300, 100_000) for _ in range(count)]


@dataclass(frozen=True)
class Engine:
    """A MockEngine on the cluster."""

    kube: Kube
    namespace: str
    name: str

    @property
    def workload(self) -> str:
        return f"{self.name}-engine"

    def resource(self) -> Object:
        return self.kube.get("MockEngine", self.name, self.namespace)

    def all_pods(self) -> list[Object]:
        return self.kube.objects("Pod", self.namespace, f"kvsync.dev/engine={self.name}")

    def pods(self) -> list["Pod"]:
        """Return the ready pods, sorted by name."""
        ready = [pod for pod in self.all_pods() if is_ready(pod)]
        return sorted((Pod(self.kube, self.namespace, pod["metadata"]["name"]) for pod in ready), key=lambda p: p.name)

    def wait_ready(self, count: int, *, deadline_s: float = 90.0) -> list["Pod"]:
        """Wait until exactly `count` pods exist and all of them are ready and not terminating."""

        def probe() -> list[Pod] | None:
            everyone, ready = self.all_pods(), self.pods()
            states = {pod["metadata"]["name"]: pod["status"].get("phase") for pod in everyone}
            assert len(ready) == len(everyone) == count, f"{len(ready)} of {count} pods ready: {states}"
            return ready or [*ready]

        if count == 0:
            wait_until(f"{self.name} has no pods", lambda: not self.all_pods(), deadline_s=deadline_s)
            return []
        return wait_until(f"{self.name} has {count} ready pods", probe, deadline_s=deadline_s)

    def scale(self, replicas: int) -> None:
        self.kube.scale("MockEngine", self.name, self.namespace, replicas)


@dataclass(frozen=True)
class Pod:
    """An engine pod, reached through the proxy of the API server."""

    kube: Kube
    namespace: str
    name: str

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        return self.kube.call(method, self.kube.pod_path(self.namespace, self.name, HTTP, path), body, **options)

    def complete(
        self, tokens: list[int], *, model: str, max_tokens: int = 1, rank: int | None = None, **fields: Any
    ) -> Object:
        """Send a completion request, to one rank if `rank` is given, and return the answer."""
        body = {"model": model, "prompt": tokens, "max_tokens": max_tokens, "ignore_eos": True, **fields}
        headers = {} if rank is None else {"X-data-parallel-rank": str(rank)}
        return self.call("POST", "/v1/completions", body, timeout_s=120.0, headers=headers)

    def wait_quiet(self, *, deadline_s: float = 30.0) -> None:
        """Wait until the pod has no requests and has sent all of its events."""
        wait_until(
            f"{self.name} is quiet", lambda: self.call("GET", "/debug/kv/digest")["quiet"], deadline_s=deadline_s
        )

    def blocks(self) -> dict[Row, int]:
        """Return the number of copies of each block in the block table of the pod, over all ranks."""
        path = self.kube.pod_path(self.namespace, self.name, HTTP, "/debug/kv/blocks")
        answer = self.kube.send("GET", path)
        if answer.status != 200:
            raise KubeError(answer.status, "GET", path, answer.data.decode(errors="replace"))
        return parse_blocks(answer.data)

    def metrics(self) -> str:
        return str(self.call("GET", "/metrics"))

    def end_process(self) -> None:
        """End the process of the container, which the kubelet then restarts in the same pod."""
        self.kube.execute(self.name, self.namespace, ["python3", "-c", "import os; os.kill(1, 15)"])

    def restarts(self) -> int:
        statuses = self.kube.get("Pod", self.name, self.namespace)["status"].get("containerStatuses", [])
        return sum(status["restartCount"] for status in statuses)


def parse_blocks(data: bytes) -> dict[Row, int]:
    """Parse the NDJSON of blocks of an engine or the index into the number of copies of each block."""
    table: Counter[Row] = Counter()
    for line in data.splitlines():
        if line.strip():
            row = json.loads(line)
            table[(str(row["hash"]), row["medium"], row.get("group_idx"))] += int(row.get("copies", 1))
    return dict(table)
