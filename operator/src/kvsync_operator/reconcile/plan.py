"""`reconcile`: one pass of one custom resource."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_operator import names
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.models.document import Resource, parse_resource
from kvsync_operator.objects import build_objects
from kvsync_operator.objects.meta import KubeObject, selector_labels, selector_text
from kvsync_operator.reconcile.conditions import Verdict, announce, merge_conditions
from kvsync_operator.reconcile.drift import find_drift
from kvsync_operator.reconcile.ownership import is_owned
from kvsync_operator.reconcile.status import (
    Workload,
    compute_workload,
    judge_invalid,
    judge_sync,
    judge_workload,
)
from kvsync_operator.reconcile.types import Announcement, Observed, Plan, Reference, SyncReport, reference_of

__all__ = ["reconcile"]

_WORKLOADS = ("Deployment", "StatefulSet")


def reconcile(observed: Observed) -> Plan:
    """Decide what one pass does.

    A resource being deleted gets nothing: the garbage collector does the rest. An invalid one keeps what
    runs and says in its conditions what is wrong. Otherwise missing and changed objects are applied,
    unwanted ones pruned, and the status says what the observed objects show.
    """
    document = observed.document
    if document["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        resource = parse_resource(document)
    except InvalidSpecError as error:
        return _plan_invalid(observed, str(error))
    desired = build_objects(resource, observed.images)
    sorting = _sort(desired, observed)
    live_workload = sorting.live.get(reference_of(_workload_of(desired)))
    workload = compute_workload(_workload_of(desired), live_workload)
    verdicts = judge_workload(workload, observed.problems, [str(item) for item in sorting.waiting])
    fields = _counts(workload) | {"selector": selector_text(selector_labels(resource))}
    if resource.kind == names.PREFIX_INDEX:
        verdicts.append(judge_sync(workload, observed.sync))
        fields |= _index_fields(resource, observed.sync)
    status, events = _status(observed, verdicts, fields)
    return Plan(tuple(sorting.apply), tuple(sorting.prune), status, tuple(events), tuple(sorting.repairs))


def _plan_invalid(observed: Observed, message: str) -> Plan:
    shown = observed.document.get("status") or {}
    kept = ("replicas", "updatedReplicas", "readyReplicas", "selector", "publishers", "endpoint", "routerEndpoint")
    verdicts = judge_invalid(message)
    if observed.document["kind"] == names.PREFIX_INDEX:
        verdicts.append(Verdict("Synced", "Unknown", "InvalidSpec", "not looked at while the spec is invalid"))
    status, events = _status(observed, verdicts, {key: shown[key] for key in kept if key in shown})
    return Plan(status=status, events=tuple(events))


@dataclass(frozen=True, slots=True)
class _Sorting:
    """The desired and the live objects, sorted by what is to happen to them."""

    live: dict[Reference, KubeObject]
    apply: list[KubeObject]
    prune: list[Reference]
    waiting: list[Reference]
    repairs: list[Announcement]


def _sort(desired: list[KubeObject], observed: Observed) -> _Sorting:
    live = {reference_of(child): child for child in observed.children if is_owned(observed.document, child)}
    foreign = {reference_of(child) for child in observed.children} - set(live)
    settled = _was_settled(observed.document)
    result = _Sorting(live, [], [], [], [])
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
    """Whether everything had been brought about for this spec, so that a difference now is someone else's doing."""
    status = document.get("status") or {}
    reasons = [item.get("reason") for item in status.get("conditions") or () if item.get("type") == "Ready"]
    current = status.get("observedGeneration") == document["metadata"].get("generation")
    return current and any(reason in ("AllPodsReady", "PodsNotReady", "RollingOut") for reason in reasons)


def _describe_repair(desired: KubeObject, live: KubeObject | None, drift: str | None) -> Announcement | None:
    kind, name = desired["kind"], desired["metadata"]["name"]
    if live is None:
        return Announcement(
            "Warning", "Recreated", f"{kind} {name} was gone, or had lost our labels, and is made again"
        )
    hashes = [obj["metadata"].get("annotations", {}).get(names.ANNOTATION_SPEC_HASH) for obj in (desired, live)]
    if drift is not None and hashes[0] == hashes[1]:
        return Announcement("Warning", "Repaired", f"{kind} {name} was changed at {drift} and is put back")
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
    fields: dict[str, Any] = {
        "publishers": {
            "total": report.total,
            "live": report.live,
            "stale": report.stale,
            "resyncing": report.resyncing,
            "quarantined": report.quarantined,
        },
        "endpoint": f"http://{names.index_name(resource.name)}.{resource.namespace}.svc:{names.INDEX_PORT}",
    }
    router = resource.spec.router
    if router is not None:
        fields["routerEndpoint"] = f"http://{names.router_name(resource.name)}.{resource.namespace}.svc:{router.port}"
    return fields


def _status(
    observed: Observed, verdicts: list[Verdict], fields: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, list[Announcement]]:
    """The new status, None when it is the one shown, and the events of its turns."""
    document = observed.document
    shown = document.get("status") or {}
    generation = int(document["metadata"].get("generation") or 0)
    conditions = shown.get("conditions") or []
    status = {
        "conditions": merge_conditions(verdicts, conditions, generation, observed.now),
        "observedGeneration": generation,
        **fields,
    }
    return (None if status == shown else status), announce(verdicts, conditions)
