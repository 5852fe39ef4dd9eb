"""Derives counts and condition states from the observed objects and from the report of the index."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_operator.objects.meta import KubeObject, has_spec_of
from kvsync_operator.reconcile.conditions import ConditionState
from kvsync_operator.reconcile.types import Problem, SyncReport


@dataclass(frozen=True, slots=True)
class Workload:
    """The observed state of a Deployment or a StatefulSet.

    Args:
        exists: Whether it exists.
        current: Whether it has the desired spec and its controller has observed it.
        desired: Desired number of pods.
        replicas: Number of pods.
        updated: Number of pods with the current spec.
        ready: Number of ready pods.
        available: Number of available pods.
        failure: (reason, message) if its controller reports that it makes no progress.
    """

    exists: bool
    current: bool
    desired: int
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    failure: tuple[str, str] | None = None

    @property
    def complete(self) -> bool:
        """Whether all desired pods, and no others, exist, have the current spec and are available."""
        up = self.replicas == self.updated == self.ready == self.available == self.desired
        return self.exists and self.current and up


def compute_workload(desired: KubeObject, live: KubeObject | None) -> Workload:
    """Derive the state of a workload from the desired object and the live one, which is None if it does not exist."""
    wanted = int(desired["spec"]["replicas"])
    if live is None:
        return Workload(exists=False, current=False, desired=wanted)
    status = live.get("status") or {}
    metadata = live["metadata"]
    seen = int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0)
    replicas = int(status.get("replicas") or 0)
    updated = int(status.get("updatedReplicas") or 0)
    if live["kind"] == "StatefulSet" and status.get("currentRevision") == status.get("updateRevision"):
        updated = replicas  # a StatefulSet no longer counts updated pods when its rollout has ended
    return Workload(
        exists=True,
        current=seen and has_spec_of(live, desired),
        desired=wanted,
        replicas=replicas,
        updated=updated,
        ready=int(status.get("readyReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        failure=_failure(status.get("conditions") or ()),
    )


def _failure(conditions: Iterable[Mapping[str, Any]]) -> tuple[str, str] | None:
    for condition in conditions:
        kind, status = condition.get("type"), condition.get("status")
        if kind == "ReplicaFailure" and status == "True":
            return "PodsRefused", str(condition.get("message") or "pods cannot be created")
        if kind == "Progressing" and status == "False":
            return "ProgressDeadlineExceeded", str(condition.get("message") or "the rollout makes no progress")
    return None


def workload_conditions(
    workload: Workload, problems: Iterable[Problem], waiting: Iterable[str]
) -> list[ConditionState]:
    """Return the states of Ready, Progressing and Degraded for a valid resource.

    Args:
        workload: The workload of the resource.
        problems: Objects that could not be applied or pruned.
        waiting: Objects whose name is still taken by an object that is being deleted.
    """
    counts = f"{workload.ready} of {workload.desired} pods are ready"
    problems, waiting = tuple(problems), tuple(waiting)
    problem = _find_problem(workload, problems)
    if workload.complete and not problems and not waiting:
        ready = ConditionState("Ready", "True", "AllPodsReady", counts)
        progressing = ConditionState("Progressing", "False", "Complete", "all objects match the spec")
    else:
        reason, message = _why_not_ready(workload, counts, waiting)
        if problem is not None:
            reason, message = problem.reason, problem.message
        ready = ConditionState("Ready", "False", reason, message)
        halted = problem is not None
        progressing = ConditionState("Progressing", "False" if halted else "True", reason, message)
    if problem is None:
        return [ready, progressing, ConditionState("Degraded", "False", "AsExpected", "no problem needs attention")]
    return [ready, progressing, ConditionState("Degraded", "True", problem.reason, problem.message)]


def _find_problem(workload: Workload, problems: tuple[Problem, ...]) -> Problem | None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Problem(problems[0].reason, problems[0].message + more)
    if workload.failure is not None and not workload.complete:
        return Problem(*workload.failure)
    return None


def _why_not_ready(workload: Workload, counts: str, waiting: tuple[str, ...]) -> tuple[str, str]:
    if waiting:
        return "WaitingForDeletion", f"an object of the same name must be deleted first: {waiting[0]}"
    if not workload.exists:
        return "Creating", "the workload is being created"
    if not workload.current:
        return "Updating", f"the workload is being updated; {counts}"
    if workload.updated < workload.desired or workload.replicas > workload.updated:
        return "RollingOut", f"{workload.updated} of {workload.desired} pods have the current spec; {counts}"
    if workload.replicas > workload.desired:
        return "ScalingDown", f"{workload.replicas} pods exist, {workload.desired} are desired"
    return "PodsNotReady", counts


def invalid_conditions(message: str) -> list[ConditionState]:
    """Return the states of Ready, Progressing and Degraded for a resource whose spec is invalid."""
    return [
        ConditionState("Ready", "False", "InvalidSpec", message),
        ConditionState(
            "Progressing", "False", "InvalidSpec", "waiting for a valid spec; existing objects are left unchanged"
        ),
        ConditionState("Degraded", "True", "InvalidSpec", message),
    ]


def sync_condition(workload: Workload, report: SyncReport | None) -> ConditionState:
    """Return the state of Synced, which follows from the report of the index about its publishers."""
    if workload.ready == 0:
        return ConditionState("Synced", "Unknown", "IndexNotReady", "no index pod is ready")
    if report is None:
        return ConditionState("Synced", "Unknown", "IndexNotAsked", "the index has not been asked yet")
    if report.error is not None:
        return ConditionState("Synced", "Unknown", "IndexUnreachable", report.error)
    counts = f"{report.live} of {report.total} publishers are live"
    if report.total == 0:
        return ConditionState(
            "Synced", "False", "NoPublishers", "no engine pod matches the selector, and no publishers are listed"
        )
    if report.live == report.total:
        return ConditionState("Synced", "True", "AllLive", counts)
    parts = [
        f"{count} {word}"
        for count, word in (
            (report.stale, "stale"),
            (report.resyncing, "resyncing"),
            (report.quarantined, "quarantined"),
        )
        if count
    ]
    reason = "Quarantined" if report.quarantined else "Stale" if report.stale else "Resyncing"
    return ConditionState("Synced", "False", reason, f"{counts}; {', '.join(parts)}")
