"""Builders of objects that a MockEngine and a PrefixIndex both have."""

from collections.abc import Mapping
from typing import Any

from kvsync_operator.models.document import Resource
from kvsync_operator.objects.meta import KubeObject, build_object, selector_labels


def build_service_account(resource: Resource[Any], name: str) -> KubeObject:
    """Build the account of the pods. Only index pods, which read pods from the API server, mount its token."""
    return build_object(resource, "v1", "ServiceAccount", name, {"automountServiceAccountToken": False})


def build_config_map(resource: Resource[Any], name: str, data: Mapping[str, str]) -> KubeObject:
    """Build the ConfigMap that is mounted into the pods, one file per key."""
    return build_object(resource, "v1", "ConfigMap", name, {"data": dict(data)})


def build_service(
    resource: Resource[Any], name: str, ports: list[dict[str, Any]], *, headless: bool = False
) -> KubeObject:
    """Build a Service of the ready pods; a headless one resolves to the addresses of the pods."""
    spec: dict[str, Any] = {"type": "ClusterIP", "selector": selector_labels(resource), "ports": ports}
    if headless:
        spec["clusterIP"] = "None"
    return build_object(resource, "v1", "Service", name, {"spec": spec})


def build_disruption_budget(resource: Resource[Any], name: str) -> KubeObject:
    """Build a budget that lets a drain evict one pod at a time, and a pod that is not ready at any time."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector_labels(resource)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return build_object(resource, "policy/v1", "PodDisruptionBudget", name, {"spec": spec})


def build_ingress_policy(resource: Resource[Any], name: str, rules: list[dict[str, Any]]) -> KubeObject:
    """Build a policy with `rules` for incoming connections. Outgoing connections are not restricted."""
    spec = {
        "podSelector": {"matchLabels": selector_labels(resource)},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    }
    return build_object(resource, "networking.k8s.io/v1", "NetworkPolicy", name, {"spec": spec})


def service_port(name: str, port: int) -> dict[str, Any]:
    """Return the port of a Service that leads to the container port of the same name."""
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
