"""Records of a failed test on a cluster: objects, events, logs, and the publishers and metrics of its indexes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import yaml

from kvsync_testkit.kube import Kube, KubeError, Object

KINDS = (
    "MockEngine", "PrefixIndex", "Deployment", "StatefulSet", "ReplicaSet", "Pod", "Service", "ConfigMap",
    "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget", "PersistentVolumeClaim",
)  # fmt: skip
"""The kinds that are written down, and that have a namespace."""


def dump_namespace(kube: Kube, namespace: str, folder: Path) -> None:
    """Write everything that may explain a failure to `folder`. The file of what cannot be read contains the error."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        _write(folder / f"{kind.lower()}s.yaml", partial(_objects, kube, kind, namespace))
    _write(folder / "events.txt", lambda: _events(kube, namespace))
    try:
        pods = kube.objects("Pod", namespace)
        indexes = kube.objects("PrefixIndex", namespace)
    except (KubeError, OSError):
        return
    for pod in pods:
        _dump_logs(kube, pod, folder)
    for index in indexes:
        service = f"{index['metadata']['name']}-index"
        for page in ("v1/publishers", "metrics"):
            path = kube.service_path(namespace, service, "http", f"/{page}")
            _write(
                folder / f"{service}.{page.replace('/', '-')}",
                partial(_text, kube, path),
            )


def _dump_logs(kube: Kube, pod: Object, folder: Path) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for status in pod["status"].get("containerStatuses", []):
        container = status["name"]
        _write(folder / f"{name}.{container}.log", partial(kube.logs, name, namespace, container))
        if status.get("restartCount"):
            _write(
                folder / f"{name}.{container}.previous.log",
                partial(kube.logs, name, namespace, container, previous=True),
            )


def _text(kube: Kube, path: str) -> str:
    return kube.send("GET", path).data.decode(errors="replace")


def _objects(kube: Kube, kind: str, namespace: str) -> str:
    items = kube.objects(kind, namespace)
    for item in items:
        item["metadata"].pop("managedFields", None)
    return str(yaml.safe_dump_all(items, sort_keys=False))


def _events(kube: Kube, namespace: str) -> str:
    events = kube.objects("Event", namespace)
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    lines = [
        f"{event.get('lastTimestamp') or event.get('eventTime')} {event.get('type')} {event.get('reason')}"
        f" {event['involvedObject'].get('kind')}/{event['involvedObject'].get('name')} x{event.get('count', 1)}:"
        f" {event.get('message')}"
        for event in events
    ]
    return "\n".join(lines) + "\n"


def _write(path: Path, produce: Callable[[], str]) -> None:
    try:
        text = produce()
    except (KubeError, OSError) as error:
        text = f"could not be read: {error}\n"
    path.write_text(text)
