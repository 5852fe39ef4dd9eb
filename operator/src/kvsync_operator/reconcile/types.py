"""What `reconcile` sees and what it decides, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject

__all__ = ["Announcement", "Observed", "Plan", "Problem", "Reference", "SyncReport", "reference_of"]


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """Which object: enough to read or delete it."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def reference_of(obj: Mapping[str, Any]) -> Reference:
    """The reference of an object as the API has it."""
    metadata = obj["metadata"]
    return Reference(obj["apiVersion"], obj["kind"], metadata.get("namespace", ""), metadata["name"])


@dataclass(frozen=True, slots=True)
class Problem:
    """An object that could not be brought about in the last pass: a condition's reason and message."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What the index pods say about their publishers; `error` when they could not be asked.

    With several pods the counts are those of the one with the fewest live publishers.
    """

    total: int = 0
    live: int = 0
    stale: int = 0
    resyncing: int = 0
    quarantined: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A Kubernetes Event to post."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One pass's input.

    Args:
        document: the custom resource as the API gave it, status included.
        children: the live objects that carry its labels.
        images: default images.
        now: the time, RFC 3339 in UTC, for transition times.
        sync: what the index says; None for a MockEngine.
        problems: what failed when the plan was carried out.
        enforce: apply every object, even one that looks right (the slow resync, which trusts no cache).
    """

    document: Mapping[str, Any]
    children: tuple[KubeObject, ...]
    images: Images
    now: str
    sync: SyncReport | None = None
    problems: tuple[Problem, ...] = ()
    enforce: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One pass's decision.

    Args:
        objects: to be applied, in this order.
        prune: ours, live, and not wanted any more.
        status: the whole status to write, None when it is what the resource shows already.
        events: conditions that turned, to be posted after the status was written.
        repairs: what was found changed or gone by another's hand.
    """

    objects: tuple[KubeObject, ...] = ()
    prune: tuple[Reference, ...] = ()
    status: dict[str, Any] | None = None
    events: tuple[Announcement, ...] = ()
    repairs: tuple[Announcement, ...] = ()
