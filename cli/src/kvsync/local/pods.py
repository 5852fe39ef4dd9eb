"""From the operator's objects to local processes: what a kubelet would start, with addresses of this machine.

The objects are the ones that the operator applies to a cluster, and only what needs a cluster is replaced. A pod gets a
loopback address, and a ConfigMap becomes a folder. As there is no API server to watch, the selector of an index is
applied to the pods that are planned here, and the result is written as a publishers file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kvsync.local.addresses import Network
from kvsync.local.process import Spec, executable
from kvsync.local.selectors import selects
from kvsync_operator import names
from kvsync_operator.models.document import Resource
from kvsync_operator.objects import Images, build_objects

COMMANDS = {"engine": "kvsync-mockpod", "index": "kvsync-indexer"}
WORKLOADS = ("Deployment", "StatefulSet")
ENVIRONMENT = {"POD_NAME": "name", "POD_NAMESPACE": "namespace", "POD_UID": "name", "POD_IP": "host"}
PUBLISHERS_FILE = "publishers.yaml"


@dataclass(frozen=True, slots=True)
class LocalPod:
    """One pod as a process to start."""

    name: str
    namespace: str
    host: str
    role: str
    """Name of the container: `engine` or `index`."""
    ports: Mapping[str, int]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    files: Mapping[Path, str]
    spec: Spec

    @property
    def http_url(self) -> str:
        """Base URL of its HTTP API."""
        return f"http://{self.host}:{self.ports['http']}"

    @property
    def router_url(self) -> str | None:
        """Base URL of its router, if it has one."""
        return f"http://{self.host}:{self.ports['router']}" if "router" in self.ports else None

    @property
    def health_url(self) -> str:
        """URL that answers 200 when it is ready."""
        return f"{self.http_url}/{'health' if self.role == 'engine' else 'readyz'}"

    def publishers(self) -> list[dict[str, object]]:
        """Its entries in a publishers file, one per rank, from the annotations that discovery reads."""
        note = self.annotations
        events, replay = int(note[names.ANNOTATION_EVENTS_PORT]), int(note[names.ANNOTATION_REPLAY_PORT])
        ranks = int(note[names.ANNOTATION_RANKS])
        rows: list[dict[str, object]] = []
        for rank in range(ranks):
            row: dict[str, object] = {
                "name": self.name if ranks == 1 else f"{self.name}/{rank}",
                "model": note[names.ANNOTATION_MODEL],
                "endpoint": f"tcp://{self.host}:{events + rank}",
                "replay_endpoint": f"tcp://{self.host}:{replay + rank}",
                "rank": rank,
                "http_url": self.http_url,
            }
            if note[names.ANNOTATION_TOPIC]:
                row["topic"] = note[names.ANNOTATION_TOPIC]
            if note[names.ANNOTATION_DEBUG] == "true":
                row["debug_url"] = self.http_url
            rows.append(row)
        return rows


def plan_pods(resources: Sequence[Resource[Any]], network: Network, folder: Path) -> list[LocalPod]:
    """Every pod of `resources`, engines first. `folder` is for the files that a cluster would mount."""
    namespaces = {resource.namespace for resource in resources}
    planner = _Planner(network, folder, qualified=len(namespaces) > 1)
    for kind in (names.MOCK_ENGINE, names.PREFIX_INDEX):
        for resource in resources:
            if resource.kind == kind:
                planner.add(resource)
    return planner.pods


class _Planner:
    def __init__(self, network: Network, folder: Path, *, qualified: bool) -> None:
        self.pods: list[LocalPod] = []
        self._network = network
        self._folder = folder
        self._qualified = qualified

    def add(self, resource: Resource[Any]) -> None:
        objects = build_objects(resource, Images())
        configs = {obj["metadata"]["name"]: obj["data"] for obj in objects if obj["kind"] == "ConfigMap"}
        for workload in (obj for obj in objects if obj["kind"] in WORKLOADS):
            for ordinal in range(workload["spec"]["replicas"]):
                self.pods.append(self._pod(workload, ordinal, configs))

    def _pod(self, workload: dict[str, Any], ordinal: int, configs: Mapping[str, Mapping[str, str]]) -> LocalPod:
        template, namespace = workload["spec"]["template"], workload["metadata"]["namespace"]
        container = template["spec"]["containers"][0]
        name = f"{workload['metadata']['name']}-{ordinal}"
        name = f"{namespace}.{name}" if self._qualified else name
        host = self._network.pod(len(self.pods))
        home = self._folder / name
        mounts = _mounts(container, home)
        arguments = [_local_path(argument, mounts) for argument in container["args"]]
        files = _config_files(template["spec"], mounts, configs)
        if container["name"] == "engine":
            files = {path: _at_address(text, host) for path, text in files.items()}
        else:
            arguments, publishers = self._found(arguments, files, home)
            files = {**files, home / PUBLISHERS_FILE: publishers}
            arguments += ["--host", host]
        values = {"name": name, "namespace": namespace, "host": host}
        environment = {item["name"]: item["value"] for item in container["env"] if "value" in item}
        environment |= {variable: values[source] for variable, source in ENVIRONMENT.items()}
        argv = (executable(COMMANDS[container["name"]]), *arguments)
        return LocalPod(
            name=name,
            namespace=namespace,
            host=host,
            role=container["name"],
            ports={port["name"]: port["containerPort"] for port in container["ports"]},
            labels=template["metadata"]["labels"],
            annotations=template["metadata"]["annotations"],
            files=files,
            spec=Spec(name, argv, self._folder / "logs" / f"{name}.log", environment),
        )

    def _found(self, arguments: list[str], files: Mapping[Path, str], home: Path) -> tuple[list[str], str]:
        """The arguments with a publishers file in place of the flags of discovery, and the content of that file.

        No pod starts from another one, because all start at the same time and there is no Service.
        """
        others: list[str] = []
        left_out = ("--discover", "--selector", "--namespace", "--publishers", "--bootstrap-from")
        found: dict[str, list[str]] = {flag: [] for flag in left_out}
        flags = iter(arguments)
        for flag in flags:
            if flag in found:
                found[flag].append(next(flags))
            else:
                others.append(flag)
        rows: list[dict[str, object]] = []
        for text in (files[Path(path)] for path in found["--publishers"]):
            rows += yaml.safe_load(text)
        for pod in self.pods if found["--discover"] else ():
            wanted = pod.namespace in found["--namespace"] or "*" in found["--namespace"]
            if pod.role == "engine" and wanted and selects(",".join(found["--selector"]), pod.labels):
                rows += pod.publishers()
        return [*others, "--publishers", str(home / PUBLISHERS_FILE)], yaml.safe_dump(rows, sort_keys=False)


def _mounts(container: Mapping[str, Any], home: Path) -> dict[str, Path]:
    """Local folder per mount path, for every volume except /tmp."""
    return {mount["mountPath"]: home / mount["name"] for mount in container["volumeMounts"] if mount["name"] != "tmp"}


def _local_path(argument: str, mounts: Mapping[str, Path]) -> str:
    for path, folder in mounts.items():
        if argument == path or argument.startswith(f"{path}/"):
            return str(folder) + argument.removeprefix(path)
    return argument


def _config_files(
    pod: Mapping[str, Any], mounts: Mapping[str, Path], configs: Mapping[str, Mapping[str, str]]
) -> dict[Path, str]:
    """The content of every ConfigMap volume, by local path."""
    folders = {folder.name: folder for folder in mounts.values()}
    files: dict[Path, str] = {}
    for volume in pod["volumes"]:
        source = volume.get("configMap")
        if source is not None and volume["name"] in folders:
            folder = folders[volume["name"]]
            files |= {folder / key: text for key, text in configs[source["name"]].items()}
    return files


def _at_address(text: str, host: str) -> str:
    """The configuration of an engine with the address of its pod in place of `*`.

    vLLM's publisher binds only wildcards and IPv6 addresses, and `*` would take the port on every address. The address
    of the pod is therefore written in its IPv6 form, which is the same socket address. The replay socket always binds.
    """
    config = yaml.safe_load(text)
    events = config["kv-events-config"]
    events["endpoint"] = events["endpoint"].replace("*", f"[::ffff:{host}]")
    events["replay_endpoint"] = events["replay_endpoint"].replace("*", host)
    return yaml.safe_dump({**config, "host": host}, sort_keys=True)
