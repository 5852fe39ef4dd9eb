"""What the watches have shown so far: custom resources and the objects that belong to them.

A write's answer goes in as well, so that the next pass sees its own work before the watch brings it
back. Older news never replaces newer: resource versions of one object are compared as the integers
they are (Kubernetes guarantees the order since 1.35, etcd always had it).
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kvsync_operator import names
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.reconcile.types import Reference, reference_of

__all__ = ["Cache", "Key", "owner_key"]


class Key(NamedTuple):
    """Which custom resource."""

    kind: str
    namespace: str
    name: str


def owner_key(obj: Mapping[str, Any]) -> Key | None:
    """The custom resource whose labels `obj` carries, None when it carries none."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    namespace = labels.get(names.LABEL_HOME) or metadata.get("namespace", "")
    if labels.get(names.LABEL_MANAGED_BY) != names.FIELD_MANAGER:
        return None
    for kind, label in ((names.MOCK_ENGINE, names.LABEL_ENGINE), (names.PREFIX_INDEX, names.LABEL_INDEX)):
        if name := labels.get(label):
            return Key(kind, namespace, name)
    return None


def _version(obj: Mapping[str, Any]) -> int:
    text = obj["metadata"].get("resourceVersion") or "0"
    return int(text) if str(text).isdigit() else 0


class Cache:
    """Latest known state of every object, by reference and by the custom resource it belongs to."""

    def __init__(self) -> None:
        self._resources: dict[Key, dict[str, Any]] = {}
        self._objects: dict[Reference, KubeObject] = {}
        self._owners: dict[Reference, Key] = {}
        self._children: dict[Key, set[Reference]] = {}

    def put_resource(self, document: dict[str, Any]) -> Key:
        """Take in a custom resource; older news is dropped."""
        metadata = document["metadata"]
        key = Key(document["kind"], metadata["namespace"], metadata["name"])
        known = self._resources.get(key)
        if known is None or known["metadata"]["uid"] != metadata["uid"] or _version(known) <= _version(document):
            self._resources[key] = document
        return key

    def drop_resource(self, key: Key, uid: str | None = None) -> bool:
        """Forget a custom resource, with `uid` only if it is still that one; whether it was known."""
        known = self._resources.get(key)
        if known is None or (uid is not None and known["metadata"]["uid"] != uid):
            return False
        del self._resources[key]
        return True

    def resource(self, key: Key) -> dict[str, Any] | None:
        """The custom resource, None when there is none."""
        return self._resources.get(key)

    def keys(self) -> list[Key]:
        """Every custom resource known."""
        return list(self._resources)

    def put_object(self, obj: KubeObject) -> Key | None:
        """Take in an object; the custom resource it belongs to."""
        reference, key = reference_of(obj), owner_key(obj)
        known = self._objects.get(reference)
        same = known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid")
        if known is not None and same and _version(known) > _version(obj):
            return key
        self._forget(reference)
        if key is not None:
            self._objects[reference] = _slim(obj)
            self._owners[reference] = key
            self._children.setdefault(key, set()).add(reference)
        return key

    def drop_object(self, obj: KubeObject) -> Key | None:
        """Forget a deleted object, unless a new one of its name is known already; whose it was."""
        reference = reference_of(obj)
        known = self._objects.get(reference)
        key = self._owners.get(reference) or owner_key(obj)
        if known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid"):
            self._forget(reference)
        return key

    def forget_reference(self, reference: Reference) -> None:
        """Forget an object that a read showed to be gone."""
        self._forget(reference)

    def object(self, reference: Reference) -> KubeObject | None:
        """The object, None when it is not known."""
        return self._objects.get(reference)

    def children(self, key: Key) -> tuple[KubeObject, ...]:
        """Every known object of a custom resource, in a stable order."""
        return tuple(self._objects[reference] for reference in sorted(self._children.get(key, ())))

    def objects(self) -> Iterable[KubeObject]:
        """Every known object."""
        return list(self._objects.values())

    def _forget(self, reference: Reference) -> None:
        key = self._owners.pop(reference, None)
        self._objects.pop(reference, None)
        if key is not None:
            siblings = self._children[key]
            siblings.discard(reference)
            if not siblings:
                del self._children[key]


def _slim(obj: KubeObject) -> KubeObject:
    """`obj` without its managed fields, which are its largest part and never looked at."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
