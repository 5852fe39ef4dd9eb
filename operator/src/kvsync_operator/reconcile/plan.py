"""`reconcile`: derives the plan of one pass from the observed state of one custom resource."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_operator import names
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.models.document import Resource, parse_resource
from kvsync_operator.objects import build_objects
from kvsync_operator.objects.meta import KubeObject, has_spec_of, selector_labels, selector_text
from kvsync_operator.reconcile.admission import check_namespaces, check_sizes, ungranted_objects
from kvsync_operator.reconcile.conditions import ConditionState, merge_conditions, transition_events
from kvsync_operator.reconcile.drift import find_drift
from kvsync_operator.reconcile.ownership import is_owned
from kvsync_operator.reconcile.pool import PoolPlan, plan_pool, pool_condition, pool_of_status
from kvsync_operator.reconcile.status import (
    Workload,
    compute_workload,
    invalid_conditions,
    sync_condition,
    workload_conditions,
)
from kvsync_operator.reconcile.types import KubeEvent, Observed, Plan, Reference, SyncReport, reference_of

_WORKLOADS = ("Deployment", "StatefulSet")
_KEPT = (
    "replicas", "updatedReplicas", "readyReplicas", "selector", "publishers", "endpoint", "routerEndpoint", "pool",
    "pickerEndpoint",
)  # fmt: skip
"""Fields of the status that stay as they are while the spec is invalid."""


def reconcile(observed: Observed) -> Plan:
    """Decide what one pass does.

    The plan of a resource that is being deleted is empty, because the garbage collector deletes its objects. The plan
    of an invalid resource changes no object and only reports the error in the conditions; but what the resource has in
    a namespace that is not, or no longer, granted to it is deleted. In all other cases the plan applies objects that
    are missing or differ, prunes objects that are no longer desired, and updates the status.
    """
    document = observed.document
    if document["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        resource = parse_resource(document)
        check_namespaces(resource, observed.grants)
        desired = build_objects(resource, observed.images)
        check_sizes(desired)
    except InvalidSpecError as error:
        return _plan_invalid(observed, str(error))
    difference = _compare(desired, observed)
    live_workload = difference.live.get(reference_of(_workload_of(desired)))
    workload = compute_workload(_workload_of(desired), live_workload)
    states = workload_conditions(workload, observed.problems, [str(item) for item in difference.waiting])
    fields = _counts(workload) | {"selector": selector_text(selector_labels(resource))}
    if resource.kind == names.PREFIX_INDEX:
        states.append(sync_condition(workload, observed.sync))
        fields |= _index_fields(resource, observed.sync)
        if (pool := pool_of_status(resource, document, observed.pool)) is not None:
            fields["pool"] = pool
        if (asked := pool_condition(resource, document, observed.pool)) is not None:
            states.append(asked)
    pools = plan_pool(resource, document, observed.pool) if resource.kind == names.PREFIX_INDEX else PoolPlan()
    status, events = _status(observed, states, fields)
    return Plan(
        objects=tuple(difference.apply),
        prune=tuple(difference.prune),
        pool=pools.apply,
        prune_pools=pools.prune,
        status=status,
        events=tuple(events),
        repairs=tuple(difference.repairs),
    )


def _plan_invalid(observed: Observed, message: str) -> Plan:
    shown = observed.document.get("status") or {}
    states = invalid_conditions(message)
    if observed.document["kind"] == names.PREFIX_INDEX:
        states.append(
            ConditionState("Synced", "Unknown", "InvalidSpec", "publishers are not evaluated while the spec is invalid")
        )
    status, events = _status(observed, states, {key: shown[key] for key in _KEPT if key in shown})
    return Plan(prune=ungranted_objects(observed), status=status, events=tuple(events))


@dataclass(frozen=True, slots=True)
class _Difference:
    """The difference between the desired and the live objects.

    Args:
        live: The live objects that belong to the resource.
        apply: Desired objects that have to be applied.
        prune: Live objects that are not desired.
        waiting: Desired objects whose name is still taken by an object that is being deleted or has another owner.
        repairs: Events for objects that someone else changed or deleted.
    """

    live: dict[Reference, KubeObject]
    apply: list[KubeObject]
    prune: list[Reference]
    waiting: list[Reference]
    repairs: list[KubeEvent]


def _compare(desired: list[KubeObject], observed: Observed) -> _Difference:
    live = {reference_of(child): child for child in observed.children if is_owned(observed.document, child)}
    foreign = {reference_of(child) for child in observed.children} - set(live)
    settled = _was_settled(observed.document)
    result = _Difference(live, [], [], [], [])
    wanted = set()
    for obj in desired:
        reference = reference_of(obj)
        wanted.add(reference)
        present = live.get(reference)
        if reference in foreign or (present is not None and present["metadata"].get("deletionTimestamp")):
            result.waiting.append(reference)
            continue
        drift = find_drift(obj, present) if present is not None else None
        if observed.enforce or present is None or drift is not None:
            result.apply.append(obj)
        if settled and (repair := _describe_repair(obj, present, drift)) is not None:
            result.repairs.append(repair)
    result.prune.extend(
        sorted(
            reference
            for reference, child in live.items()
            if reference not in wanted and not child["metadata"].get("deletionTimestamp")
        )
    )
    return result


def _was_settled(document: Mapping[str, Any]) -> bool:
    """Return whether every object of this spec had been applied, so that someone else caused a difference."""
    status = document.get("status") or {}
    reasons = [item.get("reason") for item in status.get("conditions") or () if item.get("type") == "Ready"]
    current = status.get("observedGeneration") == document["metadata"].get("generation")
    return current and any(reason in ("AllPodsReady", "PodsNotReady", "RollingOut") for reason in reasons)


def _describe_repair(desired: KubeObject, live: KubeObject | None, drift: str | None) -> KubeEvent | None:
    kind, name = desired["kind"], desired["metadata"]["name"]
    if live is None:
        return KubeEvent(
            "Warning", "Recreated", f"{kind} {name} was deleted, or its labels were removed, and is created again"
        )
    if drift is not None and has_spec_of(live, desired):
        return KubeEvent("Warning", "Repaired", f"{kind} {name} was changed at {drift} and is restored")
    return None


def _workload_of(objects: Iterable[KubeObject]) -> KubeObject:
    return next(obj for obj in objects if obj["kind"] in _WORKLOADS)


def _counts(workload: Workload) -> dict[str, Any]:
    return {
        "replicas": workload.replicas,
        "updatedReplicas": workload.updated,
        "readyReplicas": workload.ready,
    }


def _index_fields(resource: Resource[Any], sync: SyncReport | None) -> dict[str, Any]:
    report = sync or SyncReport()
    scheme = "https" if resource.spec.api.tls_secret_name is not None else "http"
    fields: dict[str, Any] = {
        "publishers": {
            "total": report.total,
            "live": report.live,
            "stale": report.stale,
            "resyncing": report.resyncing,
            "quarantined": report.quarantined,
        },
        "endpoint": f"{scheme}://{names.index_name(resource.name)}.{resource.namespace}.svc:{names.INDEX_PORT}",
    }
    router = resource.spec.router
    if router is not None:
        fields["routerEndpoint"] = f"http://{names.router_name(resource.name)}.{resource.namespace}.svc:{router.port}"
    if resource.spec.picker is not None:
        fields["pickerEndpoint"] = f"{names.picker_name(resource.name)}.{resource.namespace}.svc:{names.PICKER_PORT}"
    return fields


def _status(
    observed: Observed, states: list[ConditionState], fields: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, list[KubeEvent]]:
    """Return the new status, None if it does not change, and the events for changed conditions."""
    document = observed.document
    shown = document.get("status") or {}
    generation = int(document["metadata"].get("generation") or 0)
    conditions = shown.get("conditions") or []
    status = {
        "conditions": merge_conditions(states, conditions, generation, observed.now),
        "observedGeneration": generation,
        **fields,
    }
    return (None if status == shown else status), transition_events(states, conditions)
