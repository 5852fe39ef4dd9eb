"""The index: its resource, its Service, and the comparison of its blocks with those of the engines."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from e2e_engines import API, Pod, parse_blocks

from kvsync_testkit.cluster import wait_until
from kvsync_testkit.kube import Kube, KubeError, Object, is_ready


def build_index(name: str, namespace: str, **spec: Any) -> Object:
    """Build a PrefixIndex of the engines in its namespace; `spec` replaces its top-level fields."""
    body = {"sync": {"staleAfter": "5s", "replayTimeout": "5s"}, **spec}
    return {"apiVersion": API, "kind": "PrefixIndex", "metadata": {"name": name, "namespace": namespace}, "spec": body}


@dataclass(frozen=True)
class Index:
    """A PrefixIndex on the cluster, reached through its Service."""

    kube: Kube
    namespace: str
    name: str

    @property
    def service(self) -> str:
        return f"{self.name}-index"

    def resource(self) -> Object:
        return self.kube.get("PrefixIndex", self.name, self.namespace)

    def path(self, path: str) -> str:
        return self.kube.service_path(self.namespace, self.service, "http", path)

    def call(self, method: str, path: str, body: object = None, **options: Any) -> Any:
        return self.kube.call(method, self.path(path), body, **options)

    def pods(self) -> list[Object]:
        return self.kube.objects("Pod", self.namespace, f"kvsync.dev/index={self.name}")

    def wait_ready(self, count: int = 1, *, deadline_s: float = 90.0) -> list[Object]:
        """Wait until exactly `count` index pods exist, all of them are ready, and the Service answers."""

        def probe() -> list[Object] | None:
            pods = self.pods()
            ready = [pod for pod in pods if is_ready(pod)]
            states = {pod["metadata"]["name"]: pod["status"].get("phase") for pod in pods}
            assert len(ready) == len(pods) == count, f"{len(ready)} of {count} index pods ready: {states}"
            self.call("GET", "/healthz")
            return ready

        return wait_until(f"index {self.name} is ready", probe, deadline_s=deadline_s)

    # Contents

    def publishers(self) -> list[Object]:
        return self.call("GET", "/v1/publishers")["publishers"]

    def publishers_of(self, pod: str) -> list[Object]:
        return [row for row in self.publishers() if row["pod"].rsplit("/", 1)[-1] == pod]

    def blocks_of(self, pod: str) -> dict[Any, int]:
        """Return the number of copies of each block that the index has for one pod, over all ranks."""
        table: dict[Any, int] = {}
        for row in self.publishers_of(pod):
            path = self.path(f"/v1/publishers/{quote(row['name'], safe='')}/blocks")
            answer = self.kube.send("GET", path)
            if answer.status != 200:
                raise KubeError(answer.status, "GET", path, answer.data.decode(errors="replace"))
            for key, copies in parse_blocks(answer.data).items():
                table[key] = table.get(key, 0) + copies
        return table

    def match(self, model: str, tokens: list[int], **context: Any) -> list[Object]:
        """Return the matches, best first."""
        return self.call("POST", "/v1/match", {"model": model, "token_ids": tokens, **context})["matches"]

    def matched(self, model: str, tokens: list[int], **context: Any) -> dict[str, int]:
        """Return the number of matched blocks by pod, without pods that match none."""
        found = self.match(model, tokens, **context)
        return {row["pod"].rsplit("/", 1)[-1]: row["matched_blocks"] for row in found if row["matched_blocks"]}

    # Waits

    def wait_live(self, pods: Iterable[str], *, deadline_s: float = 60.0) -> list[Object]:
        """Wait until every publisher of these pods is live and there are no other publishers."""
        wanted = set(pods)

        def probe() -> list[Object]:
            rows = self.publishers()
            states = {row["name"]: (row["state"], row.get("reason")) for row in rows}
            found = {row["pod"].rsplit("/", 1)[-1] for row in rows}
            assert found == wanted, f"publishers are {states}, wanted exactly the pods {sorted(wanted)}"
            assert all(row["state"] == "live" for row in rows), f"not all live: {states}"
            return rows or [{}]

        return wait_until(f"index {self.name} follows {len(wanted)} pods", probe, deadline_s=deadline_s)

    def wait_agrees(self, pods: Iterable[Pod], *, groups: bool = True, deadline_s: float = 30.0) -> dict[str, int]:
        """Wait until the index has exactly the blocks of every pod (invariant I1).

        Args:
            pods: The pods to compare.
            groups: Whether to compare KV cache groups. Events of vLLM before 0.20 do not carry them.
            deadline_s: Longest time to wait per pod, in seconds.

        Returns:
            The number of blocks by pod.
        """
        counts: dict[str, int] = {}
        for pod in pods:
            pod.wait_quiet()
            counts[pod.name] = self._wait_one_agrees(pod, groups, deadline_s)
        return counts

    def _wait_one_agrees(self, pod: Pod, groups: bool, deadline_s: float) -> int:
        def probe() -> list[int]:
            truth, indexed = pod.blocks(), self.blocks_of(pod.name)
            if not groups:
                truth, indexed = _without_groups(truth), _without_groups(indexed)
            assert truth == indexed, describe_difference(pod.name, truth, indexed)
            return [len(truth)]

        return wait_until(f"I1: the index agrees with {pod.name}", probe, deadline_s=deadline_s)[0]


def _without_groups(table: dict[Any, int]) -> dict[Any, int]:
    return {(block, medium, None): copies for (block, medium, _), copies in table.items()}


def describe_difference(pod: str, truth: dict[Any, int], indexed: dict[Any, int]) -> str:
    """Describe the blocks that only one side has, and those with different numbers of copies."""
    missing = [key for key in truth if key not in indexed]
    extra = [key for key in indexed if key not in truth]
    copies = [(key, truth[key], indexed[key]) for key in truth if key in indexed and truth[key] != indexed[key]]
    return (
        f"{pod}: {len(truth)} blocks in the pod, {len(indexed)} in the index;"
        f" missing in the index {len(missing)} {missing[:3]};"
        f" only in the index {len(extra)} {extra[:3]}; other copies {len(copies)} {copies[:3]}"
    )
