"""The input and the output of `reconcile`, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kvsync_operator.grants import Grants
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """Identifies an object by kind, namespace and name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def reference_of(obj: Mapping[str, Any]) -> Reference:
    """Return the reference of an object in the form of the API."""
    metadata = obj["metadata"]
    return Reference(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that could not be applied or pruned, as the reason and the message of a condition."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PoolReport:
    """What was read of the InferencePools that concern a PrefixIndex.

    Args:
        live: The pools that exist.
        installed: Whether the API server knows the kind.
        problem: Why they could not be read, applied or deleted.
    """

    live: tuple[KubeObject, ...] = ()
    installed: bool = True
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """Number of publishers by state, as the index pods report them, or the `error` that prevented the request.

    With several index pods, the counts are those of the pod with the fewest live publishers.
    """

    total: int = 0
    live: int = 0
    stale: int = 0
    resyncing: int = 0
    quarantined: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class KubeEvent:
    """A Kubernetes Event to post."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """The input of one pass.

    Args:
        document: The custom resource in the form of the API, including its status.
        children: The live objects that have its labels.
        images: Images of pods whose resource names none.
        now: Wall-clock time as RFC 3339 in UTC, for transition times.
        grants: Which PrefixIndexes may follow the pods of other namespaces.
        sync: The report of the index; None for a MockEngine and for an index that has not been asked.
        pool: The InferencePools; None if none concerns the resource.
        problems: Failures of the plan that was just executed.
        enforce: Whether to apply every object even if it looks correct, as the slow resync does in case the cache is
            wrong.
    """

    document: Mapping[str, Any]
    children: tuple[KubeObject, ...]
    images: Images
    now: str
    grants: Grants = field(default_factory=Grants)
    sync: SyncReport | None = None
    pool: PoolReport | None = None
    problems: tuple[Problem, ...] = ()
    enforce: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The decision of one pass.

    Args:
        objects: Objects to apply, in this order.
        prune: Objects of the resource that are no longer desired.
        pool: The InferencePool to apply, which is not watched as the other objects are.
        prune_pools: InferencePools of the resource that are no longer desired.
        status: The whole new status, None if it does not change.
        events: Events for changed conditions, to be posted after the status is written.
        repairs: Events for objects that someone else changed or deleted.
    """

    objects: tuple[KubeObject, ...] = ()
    prune: tuple[Reference, ...] = ()
    pool: KubeObject | None = None
    prune_pools: tuple[Reference, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[KubeEvent, ...] = ()
    repairs: tuple[KubeEvent, ...] = ()
