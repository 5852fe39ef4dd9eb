"""Builds the pod templates of both workloads: security settings, probes, graceful termination, and user settings.

Every pod complies with the `restricted` pod security standard, and the template of a resource cannot change that. The
root file system is read-only; writable paths are volumes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.common import PodTemplate

CONFIG_DIR = "/etc/kvsync"
CURVE_DIR = "/etc/kvsync-curve"
PRE_STOP_S = 3
"""How long a terminating pod continues to serve, in seconds, while it is removed from the endpoints of its Services."""

STARTUP_S = 180
"""How long a container may take to start, in seconds. 100 pods that started on two cores took up to 65 s each."""

_OWN_ENV: dict[str, str] = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "POD_IP": "status.podIP",
}


@dataclass(frozen=True, slots=True)
class PodParts:
    """The parts of a pod that differ between engines and indexes."""

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


def secret_volume(name: str, secret: str, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build a volume called `name` with the files of a Secret, and its mount at `folder`."""
    volume = {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}}
    return volume, {"name": name, "mountPath": folder, "readOnly": True}


def http_probe(
    path: str, port: str, *, period_s: int, failures: int, timeout_s: int = 3, scheme: str | None = None
) -> dict[str, Any]:
    """Build an HTTP probe on a named port; with the scheme `HTTPS`, the kubelet accepts any certificate."""
    return {
        "httpGet": {"path": path, "port": port, **({} if scheme is None else {"scheme": scheme})},
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "failureThreshold": failures,
    }


def startup_probe(path: str, port: str, *, scheme: str | None = None) -> dict[str, Any]:
    """Build a probe that runs every second until it succeeds; the other probes start after it."""
    return http_probe(path, port, period_s=1, failures=STARTUP_S, scheme=scheme)


def build_pod_template(parts: PodParts, template: PodTemplate) -> dict[str, Any]:
    """Build the pod template of a workload from the parts of its kind and the `template` of its resource."""
    spec: dict[str, Any] = {
        "serviceAccountName": parts.service_account,
        "automountServiceAccountToken": parts.api_access,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": parts.grace_s + PRE_STOP_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": names.RUN_AS_USER,
            "runAsGroup": names.RUN_AS_USER,
            "fsGroup": names.RUN_AS_USER,
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
