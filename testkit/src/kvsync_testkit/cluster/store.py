"""The storage of `FakeKube`: objects, versions, server-side apply, owners, and the history that watches resume from.

It implements what an operator relies on: resource versions increase, generations increase with the spec, apply removes
fields that its manager no longer applies, the deletion of an owner deletes what it owns, the deletion of a namespace
deletes its contents, and a workload gets a status. It deliberately omits what an operator must not rely on: defaults,
validation and managed fields.
"""

import copy
import functools
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec, TypeAlias, TypeVar

from kvsync_testkit.errors import KitError
from kvsync_testkit.kube import Object

Path: TypeAlias = tuple[str, str, str]
"""Plural, namespace (empty for kinds without one), name."""
ChangeKind: TypeAlias = Literal["ADDED", "MODIFIED", "DELETED"]
P = ParamSpec("P")
R = TypeVar("R")

KINDS = {
    ("v1", "Namespace"): "namespaces",
    ("v1", "Event"): "events",
    ("v1", "Pod"): "pods",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Service"): "services",
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("rbac.authorization.k8s.io/v1", "Role"): "roles",
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): "rolebindings",
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): "customresourcedefinitions",
    ("inference.networking.k8s.io/v1", "InferencePool"): "inferencepools",
    ("kvsync.dev/v1alpha1", "MockEngine"): "mockengines",
    ("kvsync.dev/v1alpha1", "PrefixIndex"): "prefixindexes",
}
"""(apiVersion, kind) -> plural of every kind that is served."""
BY_PLURAL = {plural: key for key, plural in KINDS.items()}


class RefusedError(KitError):
    """The server answers with a status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def merged(base: Any, change: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Merge `change` into `base`: maps by key, lists of named entries by name; other values are replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    if isinstance(base, list) and isinstance(change, list) and change:
        key = _key_of([*base, *change])
        if key is not None:
            old = {item[key]: item for item in base}
            new = {item[key]: merged(old.get(item[key]), item) for item in change}
            return [new.pop(item[key], item) for item in base] + list(new.values())
    return copy.deepcopy(change)


def _key_of(entries: list[Any]) -> str | None:
    """The field that names every entry of a list, None if there is none."""
    keys = ("name", "uid", "type")
    return next((key for key in keys if all(isinstance(each, dict) and key in each for each in entries)), None)


def without(live: Any, before: Any, after: Any) -> Any:  # noqa: ANN401
    """Return `live` without the fields and named entries that are in `before` but not in `after`: no longer applied."""
    if isinstance(live, dict) and isinstance(before, dict):
        after = after if isinstance(after, dict) else {}
        result = {}
        for key, value in live.items():
            if key in before and key not in after:
                continue
            result[key] = without(value, before[key], after.get(key)) if key in before else value
        return result
    if isinstance(live, list) and isinstance(before, list) and isinstance(after, list):
        key_of = _key_of([*live, *before, *after])
        if key_of is not None:
            gone = {each[key_of] for each in before} - {each[key_of] for each in after}
            return [each for each in live if each[key_of] not in gone]
    return live


def locked(method: Callable[Concatenate["Store", P], R]) -> Callable[Concatenate["Store", P], R]:
    """Serialise changes, because tests and the thread of the server both write."""

    @functools.wraps(method)
    def call(self: "Store", /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return call


class Change(NamedTuple):
    """An entry of the history. `before` is the object as it was, None for a new one."""

    version: int
    kind: ChangeKind
    path: Path
    object: Object
    before: Object | None = None


@dataclass
class Store:
    """All objects, and a callback for every change."""

    feed: Callable[[Change], None]
    workloads_ready: bool = True
    """Deployments and stateful sets get the status of a finished rollout by themselves."""
    objects: dict[Path, Object] = field(default_factory=dict)
    history: list[Change] = field(default_factory=list)
    oldest: int = 0
    """Watches cannot resume from versions before this one."""
    lock: Any = field(default_factory=threading.RLock)
    _applied: dict[tuple[Path, str, bool], Object] = field(default_factory=dict)
    _version: int = 1000
    _uids: Any = field(default_factory=lambda: itertools.count(1))

    @property
    @locked
    def version(self) -> str:
        """The version of the latest change, which a list contains."""
        return str(self._version)

    @locked
    def next_version(self) -> int:
        """Count a change of which nobody is told."""
        self._version += 1
        return self._version

    @locked
    def expire(self) -> None:
        """Forget the history, so that no watch can resume from what came before."""
        self.oldest = self.next_version()
        self.history.clear()

    @locked
    def forget(self, path: Path) -> None:
        """Take an object away without a change that a watch could show."""
        del self.objects[path]

    @locked
    def replace(self, path: Path, body: Object) -> Object:
        """Put an object there as it is, status included, whatever was there before."""
        return self._put(path, copy.deepcopy(body), self.objects.get(path))

    @locked
    def apply(self, path: Path, body: Object, manager: str, *, status: bool) -> Object:
        """Server-side apply."""
        live = self.objects.get(path)
        if live is None and status:
            raise RefusedError(404, f"{path[2]} not found")
        uid = body["metadata"].get("uid")
        if live is not None and uid is not None and uid != live["metadata"]["uid"]:
            raise RefusedError(409, "uid mismatch")
        part = {"status": body.get("status")} if status else {k: v for k, v in body.items() if k != "status"}
        before = self._applied.get((path, manager, status), {})
        base = without(copy.deepcopy(live), before, part) if live is not None else {}
        self._applied[path, manager, status] = copy.deepcopy(part)
        return self._put(path, merged(base, part), live)

    @locked
    def create(self, path: Path, body: Object) -> Object:
        """Create an object (POST)."""
        if path in self.objects:
            raise RefusedError(409, f"{path[2]} already exists")
        return self._put(path, copy.deepcopy(body), None)

    @locked
    def edit(self, path: Path, change: Mapping[str, Any]) -> Object:
        """Merge `change` into an object, like a person who uses `kubectl edit`."""
        if path not in self.objects:
            raise RefusedError(404, f"{path[2]} not found")
        return self._put(path, merged(copy.deepcopy(self.objects[path]), dict(change)), self.objects[path])

    @locked
    def delete(self, path: Path) -> Object:
        """Delete an object and everything that it owns."""
        live = self.objects.pop(path, None)
        if live is None:
            raise RefusedError(404, f"{path[2]} not found")
        self._applied = {key: value for key, value in self._applied.items() if key[0] != path}
        self._tell("DELETED", path, live)
        uid = live["metadata"]["uid"]
        for other, obj in list(self.objects.items()):
            owned = any(owner["uid"] == uid for owner in obj["metadata"].get("ownerReferences") or ())
            inside = path[0] == "namespaces" and other[1] == path[2]
            if (owned or inside) and other in self.objects:
                self.delete(other)
        return live

    def _tell(self, kind: ChangeKind, path: Path, obj: Object, before: Object | None = None) -> None:
        version = self.next_version()
        obj["metadata"]["resourceVersion"] = str(version)
        change = Change(version, kind, path, copy.deepcopy(obj), before)
        self.history.append(change)
        self.feed(change)

    def _put(self, path: Path, obj: Object, live: Object | None) -> Object:
        metadata = obj["metadata"]
        if live is not None and obj == live:
            return live
        metadata.setdefault("uid", f"uid-{next(self._uids)}")
        metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
        changed = live is None or obj.get("spec") != live.get("spec")
        metadata["generation"] = (live["metadata"].get("generation", 0) if live else 0) + changed
        self.objects[path] = obj
        self._tell("ADDED" if live is None else "MODIFIED", path, obj, live)
        if path[0] in ("deployments", "statefulsets") and changed and self.workloads_ready:
            self.finish_rollout(path)
        return self.objects[path]

    @locked
    def finish_rollout(self, path: Path, ready: int | None = None) -> None:
        """Set the status that the controller of the workload would: all pods are ready, or `ready` of them."""
        obj = copy.deepcopy(self.objects[path])
        wanted = obj["spec"]["replicas"]
        up = wanted if ready is None else ready
        obj["status"] = {
            "observedGeneration": obj["metadata"]["generation"],
            "replicas": wanted,
            "updatedReplicas": wanted,
            "readyReplicas": up,
            "availableReplicas": up,
        }
        self._put(path, obj, self.objects[path])
