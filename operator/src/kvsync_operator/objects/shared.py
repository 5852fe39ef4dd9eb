"""Objects that a MockEngine and a PrefixIndex build alike."""

from collections.abc import Mapping
from typing import Any

from kvsync_operator.models.document import Resource
from kvsync_operator.objects.meta import KubeObject, build_object, selector_labels

__all__ = [
    "build_config_map",
    "build_disruption_budget",
    "build_ingress_policy",
    "build_service",
    "build_service_account",
]


def build_service_account(resource: Resource[Any], name: str) -> KubeObject:
    """An account of its own, so that rights are given to exactly these pods; its token is mounted only where needed."""
    return build_object(resource, "v1", "ServiceAccount", name, {"automountServiceAccountToken": False})


def build_config_map(resource: Resource[Any], name: str, data: Mapping[str, str]) -> KubeObject:
    """The pods' files."""
    return build_object(resource, "v1", "ConfigMap", name, {"data": dict(data)})


def build_service(
    resource: Resource[Any], name: str, ports: list[dict[str, Any]], *, headless: bool = False
) -> KubeObject:
    """A Service over the ready pods; headless gives each pod's own address."""
    spec: dict[str, Any] = {"type": "ClusterIP", "selector": selector_labels(resource), "ports": ports}
    if headless:
        spec["clusterIP"] = "None"
    return build_object(resource, "v1", "Service", name, {"spec": spec})


def build_disruption_budget(resource: Resource[Any], name: str) -> KubeObject:
    """At most one pod at a time leaves for a drain; one that is not ready never holds a drain up."""
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector_labels(resource)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return build_object(resource, "policy/v1", "PodDisruptionBudget", name, {"spec": spec})


def build_ingress_policy(resource: Resource[Any], name: str, rules: list[dict[str, Any]]) -> KubeObject:
    """Who may connect to the pods; what they may connect to is not restricted."""
    spec = {
        "podSelector": {"matchLabels": selector_labels(resource)},
        "policyTypes": ["Ingress"],
        "ingress": rules,
    }
    return build_object(resource, "networking.k8s.io/v1", "NetworkPolicy", name, {"spec": spec})
