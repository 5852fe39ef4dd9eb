"""The fields of a pod, in the form of the API, that discovery reads."""

from collections.abc import Mapping
from typing import Any

from kvsync_indexer.discovery.limits import quoted

ANNOTATIONS = "kvsync.dev"

Pod = Mapping[str, Any]


class PodError(ValueError):
    """The pod cannot be followed; the message names the annotation or the flag."""


def has_left(pod: Pod) -> bool:
    """Whether the pod is being deleted or has ended, so that nothing must be routed to it."""
    phase = (pod.get("status") or {}).get("phase")
    return bool(pod["metadata"].get("deletionTimestamp")) or phase in ("Succeeded", "Failed")


def is_ready(status: Mapping[str, Any]) -> bool:
    """Whether the condition Ready is true."""
    conditions = status.get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def restart_count(status: Mapping[str, Any], container: str | None) -> int:
    """How often the engine's container was restarted."""
    for each in status.get("containerStatuses") or ():
        if each.get("name") == container:
            return int(each.get("restartCount") or 0)
    return 0


def annotations(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The annotations of this project, without their prefix."""
    prefix = f"{ANNOTATIONS}/"
    found = metadata.get("annotations") or {}
    return {name.removeprefix(prefix): str(value) for name, value in found.items() if name.startswith(prefix)}


def engine_container(pod: Pod, notes: Mapping[str, str]) -> Mapping[str, Any]:
    """The container that an annotation names, else the one with an event configuration, else the first."""
    containers: list[Mapping[str, Any]] = list((pod.get("spec") or {}).get("containers") or ())
    if "container" in notes:
        for each in containers:
            if each.get("name") == notes["container"]:
                return each
        names = ", ".join(str(each.get("name")) for each in containers)
        raise PodError(f"annotation {ANNOTATIONS}/container {quoted(notes['container'])}: the pod has {names:.200}")
    for each in containers:
        words = [*(each.get("command") or ()), *(each.get("args") or ())]
        if any("kv-events-config" in str(word).replace("_", "-") for word in words):
            return each
    return containers[0] if containers else {}
