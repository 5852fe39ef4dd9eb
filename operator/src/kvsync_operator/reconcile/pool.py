"""The InferencePool of an endpoint picker: what a pass makes of it, and what the condition `EndpointPicker` says.

The kind belongs to the Gateway API and may not be installed. The operator therefore does not watch it, but reads the
one pool in every pass, and nothing about a pool makes a PrefixIndex `Degraded`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.document import Resource
from kvsync_operator.objects.meta import KubeObject, has_spec_of
from kvsync_operator.objects.picker import build_pool, pool_name
from kvsync_operator.reconcile.conditions import ConditionState
from kvsync_operator.reconcile.drift import is_contained
from kvsync_operator.reconcile.ownership import is_owned
from kvsync_operator.reconcile.types import PoolReport, Reference

CONDITION = "EndpointPicker"


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What is to be done with pools: one to apply, and those to delete."""

    apply: KubeObject | None = None
    prune: tuple[Reference, ...] = ()


def pool_references(document: Mapping[str, Any]) -> list[Reference]:
    """Return the pools that a pass has to read: the one of the spec, and the one that the status still names."""
    metadata = document["metadata"]
    spec = document.get("spec")
    picker = spec.get("endpointPicker") if isinstance(spec, Mapping) else None
    found = {(document.get("status") or {}).get("pool")}
    if isinstance(picker, Mapping):
        found.add(picker.get("pool") or metadata["name"])
    return [
        Reference(names.POOL_API_VERSION, names.POOL, metadata["namespace"], name)
        for name in sorted(name for name in found if isinstance(name, str) and name)
    ]


def plan_pool(resource: Resource[Any], document: Mapping[str, Any], report: PoolReport | None) -> PoolPlan:
    """Decide about the pools that were read. A pool of somebody else is neither changed nor deleted."""
    if report is None:
        return PoolPlan()
    wanted = build_pool(resource)
    mine = [pool for pool in report.live if is_owned(document, pool)]
    prune = [
        Reference(names.POOL_API_VERSION, names.POOL, resource.namespace, pool["metadata"]["name"])
        for pool in mine
        if not pool["metadata"].get("deletionTimestamp")
        and (wanted is None or pool["metadata"]["name"] != wanted["metadata"]["name"])
    ]
    if wanted is None or not report.installed or report.problem is not None:
        return PoolPlan(None, tuple(prune))
    live = _named(report, wanted["metadata"]["name"])
    right = live is not None and (live not in mine or (has_spec_of(live, wanted) and is_contained(wanted, live)))
    return PoolPlan(None if right else wanted, tuple(prune))


def pool_of_status(resource: Resource[Any], document: Mapping[str, Any], report: PoolReport | None) -> str | None:
    """Return the name that the status has to show: the pool that is served, or one that is still to be deleted."""
    if resource.spec.picker is not None:
        return pool_name(resource)
    if report is None or (report.problem is None and not plan_pool(resource, document, report).prune):
        return None
    return (document.get("status") or {}).get("pool")


def pool_condition(
    resource: Resource[Any], document: Mapping[str, Any], report: PoolReport | None
) -> ConditionState | None:
    """Return the state of the condition, None without a picker."""
    if resource.spec.picker is None:
        return None
    name = pool_name(resource)
    if report is None:
        return _state("Unknown", "PoolNotRead", f"InferencePool {name} has not been read yet")
    if not report.installed:
        return _state("False", "KindNotInstalled", f"the cluster has no {names.POOL} of {names.POOL_API_VERSION}")
    if report.problem is not None:
        return _state("False", report.problem.reason, report.problem.message)
    pool = _named(report, name)
    if pool is None:
        return _state("False", "PoolNotFound", f"there is no InferencePool {name}")
    if build_pool(resource) is not None and not is_owned(document, pool):
        return _state("False", "NameTaken", f"InferencePool {name} exists and does not belong to this PrefixIndex")
    service, port = names.picker_name(resource.name), names.PICKER_PORT
    if not _asks(pool, service, port):
        return _state("False", "OtherPicker", f"InferencePool {name} does not refer to Service {service}, port {port}")
    return _state("True", "PoolServed", f"InferencePool {name} refers to Service {service}, port {port}")


def _named(report: PoolReport, name: str) -> KubeObject | None:
    return next((pool for pool in report.live if pool["metadata"]["name"] == name), None)


def _asks(pool: Mapping[str, Any], service: str, port: int) -> bool:
    reference = (pool.get("spec") or {}).get("endpointPickerRef") or {}
    kind = (reference.get("group") or "", reference.get("kind") or "Service")
    number = (reference.get("port") or {}).get("number")
    return kind == ("", "Service") and (reference.get("name"), number) == (service, port)


def _state(status: Any, reason: str, message: str) -> ConditionState:  # noqa: ANN401
    return ConditionState(CONDITION, status, reason, message)
