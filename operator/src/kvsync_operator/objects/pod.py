"""The pod both workloads run: restricted security, probes, graceful ends, and the user's template on top.

Security is not negotiable: every pod passes the `restricted` pod security standard, whatever the
template says. Writable paths are explicit volumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.common import PodTemplate

__all__ = ["PodParts", "build_pod_template", "http_probe", "startup_probe"]

CONFIG_DIR = "/etc/kvsync"
PRE_STOP_S = 3
"""Endpoints forget a terminating pod within this time, so that it gets no request it must refuse."""

STARTUP_S = 180
"""A hundred pods that start at once on two cores took up to 65 s each; a restart would only add to the load."""

_OWN_ENV: dict[str, str] = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "POD_IP": "status.podIP",
}


@dataclass(frozen=True, slots=True)
class PodParts:
    """What one kind of pod has that the other has not."""

    container: str
    image: str
    args: list[str]
    ports: list[dict[str, Any]]
    probes: dict[str, Any]
    service_account: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    default_resources: Mapping[str, Any]
    grace_s: int
    api_access: bool = False
    volumes: list[dict[str, Any]] = field(default_factory=list)
    mounts: list[dict[str, Any]] = field(default_factory=list)


def http_probe(path: str, port: str, *, period_s: int, failures: int, timeout_s: int = 3) -> dict[str, Any]:
    """An HTTP probe on a named port."""
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "failureThreshold": failures,
    }


def startup_probe(path: str, port: str) -> dict[str, Any]:
    """Asked every second until it answers; the other probes wait for it."""
    return http_probe(path, port, period_s=1, failures=STARTUP_S)


def build_pod_template(parts: PodParts, template: PodTemplate) -> dict[str, Any]:
    """The pod template of a workload: `parts` decide what it does, `template` where and how."""
    spec: dict[str, Any] = {
        "serviceAccountName": parts.service_account,
        "automountServiceAccountToken": parts.api_access,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": parts.grace_s + PRE_STOP_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.RUN_AS,
            "runAsGroup": names.RUN_AS,
            "fsGroup": names.RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(parts, template)],
        "volumes": [*parts.volumes, {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    if template.node_selector:
        spec["nodeSelector"] = dict(template.node_selector)
    if template.tolerations:
        spec["tolerations"] = [item.model_dump(by_alias=True, exclude_none=True) for item in template.tolerations]
    if template.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in template.image_pull_secrets]
    if template.priority_class_name:
        spec["priorityClassName"] = template.priority_class_name
    metadata = {
        "labels": {**template.labels, **parts.labels},
        "annotations": {**template.annotations, **parts.annotations},
    }
    return {"metadata": metadata, "spec": spec}


def _container(parts: PodParts, template: PodTemplate) -> dict[str, Any]:
    own: list[dict[str, Any]] = [
        {"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
        for name, path in _OWN_ENV.items()
    ]
    extra = [{"name": item.name, "value": item.value} for item in template.env if item.name not in _OWN_ENV]
    resources = (
        template.resources.model_dump(exclude_defaults=True)
        if template.resources is not None
        else dict(parts.default_resources)
    )
    return {
        "name": parts.container,
        "image": parts.image,
        "imagePullPolicy": template.image_pull_policy,
        "args": parts.args,
        "env": own + extra,
        "ports": parts.ports,
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_S}}},
        "volumeMounts": [*parts.mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
        **parts.probes,
    }
