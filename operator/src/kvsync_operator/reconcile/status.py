"""What the observed objects and the index's own words mean: counts and conditions."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kvsync_operator import names
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.reconcile.conditions import Verdict
from kvsync_operator.reconcile.types import Problem, SyncReport

__all__ = ["Workload", "compute_workload", "judge_invalid", "judge_sync", "judge_workload"]


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment or StatefulSet in the few numbers that matter.

    Args:
        exists: whether it is there at all.
        current: whether its controller has seen exactly the desired spec.
        desired: pods wanted.
        replicas, updated, ready, available: pods there are, of the current spec, ready, available.
        failure: (reason, message) when its controller says that it cannot go on.
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
        """Whether every wanted pod, and no other, is up and of the current spec."""
        up = self.replicas == self.updated == self.ready == self.available == self.desired
        return self.exists and self.current and up


def compute_workload(desired: KubeObject, live: KubeObject | None) -> Workload:
    """Compare the workload that should be with the one that is."""
    wanted = int(desired["spec"]["replicas"])
    if live is None:
        return Workload(exists=False, current=False, desired=wanted)
    status = live.get("status") or {}
    metadata = live["metadata"]
    hashes = [obj["metadata"].get("annotations", {}).get(names.ANNOTATION_SPEC_HASH) for obj in (desired, live)]
    seen = int(status.get("observedGeneration") or 0) >= int(metadata.get("generation") or 0)
    replicas = int(status.get("replicas") or 0)
    updated = int(status.get("updatedReplicas") or 0)
    if live["kind"] == "StatefulSet" and status.get("currentRevision") == status.get("updateRevision"):
        updated = replicas  # a StatefulSet stops counting updated pods once the roll-out is over
    return Workload(
        exists=True,
        current=seen and hashes[0] == hashes[1],
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
            return "ProgressDeadlineExceeded", str(condition.get("message") or "the roll-out does not get on")
    return None


def judge_workload(workload: Workload, problems: Iterable[Problem], waiting: Iterable[str]) -> list[Verdict]:
    """Ready, Progressing and Degraded of a valid resource."""
    counts = f"{workload.ready} of {workload.desired} pods are ready"
    problems, waiting = tuple(problems), tuple(waiting)
    trouble = _trouble(workload, problems)
    if workload.complete and not problems and not waiting:
        ready = Verdict("Ready", "True", "AllPodsReady", counts)
        progressing = Verdict("Progressing", "False", "Complete", "everything is as specified")
    else:
        reason, message = _why_not_ready(workload, counts, waiting)
        if trouble is not None:
            reason, message = trouble.reason, trouble.message
        ready = Verdict("Ready", "False", reason, message)
        halted = trouble is not None
        progressing = Verdict("Progressing", "False" if halted else "True", reason, message)
    if trouble is None:
        return [ready, progressing, Verdict("Degraded", "False", "AsExpected", "nothing needs attention")]
    return [ready, progressing, Verdict("Degraded", "True", trouble.reason, trouble.message)]


def _trouble(workload: Workload, problems: tuple[Problem, ...]) -> Problem | None:
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Problem(problems[0].reason, problems[0].message + more)
    if workload.failure is not None and not workload.complete:
        return Problem(*workload.failure)
    return None


def _why_not_ready(workload: Workload, counts: str, waiting: tuple[str, ...]) -> tuple[str, str]:
    if waiting:
        return "WaitingForDeletion", f"an object of an earlier owner must go first: {waiting[0]}"
    if not workload.exists:
        return "Creating", "the workload is being created"
    if not workload.current:
        return "Updating", f"the workload is being updated; {counts}"
    if workload.updated < workload.desired or workload.replicas > workload.updated:
        return "RollingOut", f"{workload.updated} of {workload.desired} pods are of the current spec; {counts}"
    if workload.replicas > workload.desired:
        return "ScalingDown", f"{workload.replicas} pods, {workload.desired} wanted"
    return "PodsNotReady", counts


def judge_invalid(message: str) -> list[Verdict]:
    """Ready, Progressing and Degraded of a resource that cannot be run as it is written."""
    return [
        Verdict("Ready", "False", "InvalidSpec", message),
        Verdict("Progressing", "False", "InvalidSpec", "waits for a valid spec; what runs is left as it is"),
        Verdict("Degraded", "True", "InvalidSpec", message),
    ]


def judge_sync(workload: Workload, report: SyncReport | None) -> Verdict:
    """The condition `Synced`: what the index itself says about its publishers."""
    if workload.ready == 0:
        return Verdict("Synced", "Unknown", "IndexNotReady", "no index pod is ready")
    if report is None:
        return Verdict("Synced", "Unknown", "IndexNotAsked", "the index has not been asked yet")
    if report.error is not None:
        return Verdict("Synced", "Unknown", "IndexUnreachable", report.error)
    counts = f"{report.live} of {report.total} publishers are live"
    if report.total == 0:
        return Verdict("Synced", "False", "NoPublishers", "the selector and the list of publishers find no engine")
    if report.live == report.total:
        return Verdict("Synced", "True", "AllLive", counts)
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
    return Verdict("Synced", "False", reason, f"{counts}; {', '.join(parts)}")
