"""Records of a failed test in out/e2e/<test>/: objects, events, logs, and the publishers and metrics of its indexes."""

from pathlib import Path

import yaml

from kvsync_testkit.kube import Kube, KubeError, Object

KINDS = [
    "MockEngine", "PrefixIndex", "Deployment", "StatefulSet", "ReplicaSet", "Pod", "Service", "ConfigMap",
    "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget", "PersistentVolumeClaim",
]  # fmt: skip


def dump_namespace(kube: Kube, namespace: str, folder: Path) -> None:
    """Write everything that may explain a failure to `folder`. The file of what cannot be read contains the error."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        _write(folder / f"{kind.lower()}s.yaml", lambda kind=kind: _objects(kube, kind, namespace))
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
                lambda path=path: kube.send("GET", path).data.decode(errors="replace"),
            )


def _dump_logs(kube: Kube, pod: Object, folder: Path) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for status in pod["status"].get("containerStatuses", []):
        container = status["name"]
        _write(folder / f"{name}.{container}.log", lambda c=container: kube.logs(name, namespace, c))
        if status.get("restartCount"):
            _write(
                folder / f"{name}.{container}.previous.log",
                lambda c=container: kube.logs(name, namespace, c, previous=True),
            )


def _objects(kube: Kube, kind: str, namespace: str) -> str:
    items = kube.objects(kind, namespace)
    for item in items:
        item["metadata"].pop("managedFields", None)
    return yaml.safe_dump_all(items, sort_keys=False)


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


def _write(path: Path, produce: object) -> None:
    try:
        text = produce()  # type: ignore[operator]
    except (KubeError, OSError) as error:
        text = f"could not be read: {error}\n"
    path.write_text(text)
