"""The last known state of the custom resources and of the objects that belong to them.

The watches fill the cache, and so do the answers to the operator's own writes, so that a pass sees what the previous
pass wrote even if the watch has not delivered it yet. An older version never replaces a newer one: the resource
versions of one object are compared as integers, an order that Kubernetes guarantees since 1.35 and etcd always had.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kvsync_operator import names
from kvsync_operator.objects.meta import KubeObject, resource_version
from kvsync_operator.reconcile.types import Reference, reference_of


class Key(NamedTuple):
    """The identity of a custom resource. It has no uid, so a resource and its successor of the same name share it."""

    kind: str
    namespace: str
    name: str


def owner_key(obj: Mapping[str, Any]) -> Key | None:
    """Return the custom resource that the labels of `obj` name, None if `obj` does not belong to the operator."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    namespace = labels.get(names.LABEL_INDEX_NAMESPACE) or metadata.get("namespace", "")
    if labels.get(names.LABEL_MANAGED_BY) != names.FIELD_MANAGER:
        return None
    for kind, label in ((names.MOCK_ENGINE, names.LABEL_ENGINE), (names.PREFIX_INDEX, names.LABEL_INDEX)):
        if name := labels.get(label):
            return Key(kind, namespace, name)
    return None


class Cache:
    """Objects by reference, and by the custom resource to which they belong."""

    def __init__(self) -> None:
        self._resources: dict[Key, dict[str, Any]] = {}
        self._objects: dict[Reference, KubeObject] = {}
        self._owners: dict[Reference, Key] = {}
        self._children: dict[Key, set[Reference]] = {}

    def put_resource(self, document: dict[str, Any]) -> Key:
        """Store a custom resource, unless a later version of it is stored already."""
        metadata = document["metadata"]
        key = Key(document["kind"], metadata["namespace"], metadata["name"])
        known = self._resources.get(key)
        stale = (
            known is not None
            and known["metadata"]["uid"] == metadata["uid"]
            and resource_version(known) > resource_version(document)
        )
        if not stale:
            self._resources[key] = document
        return key

    def drop_resource(self, key: Key, uid: str | None = None) -> bool:
        """Remove a custom resource; with `uid`, only if it still is the one with that uid.

        Returns:
            Whether it was removed.
        """
        known = self._resources.get(key)
        if known is None or (uid is not None and known["metadata"]["uid"] != uid):
            return False
        del self._resources[key]
        return True

    def resource(self, key: Key) -> dict[str, Any] | None:
        """Return the custom resource, None if it is not known."""
        return self._resources.get(key)

    def keys(self) -> list[Key]:
        """Return the keys of all custom resources."""
        return list(self._resources)

    def put_object(self, obj: KubeObject) -> Key | None:
        """Store an object, unless a later version of it is stored already, and return its custom resource."""
        reference, key = reference_of(obj), owner_key(obj)
        known = self._objects.get(reference)
        same = known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid")
        if known is not None and same and resource_version(known) > resource_version(obj):
            return key
        self.forget_reference(reference)
        if key is not None:
            self._objects[reference] = _without_managed_fields(obj)
            self._owners[reference] = key
            self._children.setdefault(key, set()).add(reference)
        return key

    def drop_object(self, obj: KubeObject) -> Key | None:
        """Remove a deleted object, unless its successor of the same name is stored, and return its custom resource."""
        reference = reference_of(obj)
        known = self._objects.get(reference)
        key = self._owners.get(reference) or owner_key(obj)
        if known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid"):
            self.forget_reference(reference)
        return key

    def forget_reference(self, reference: Reference) -> None:
        """Remove an object, whatever its uid."""
        key = self._owners.pop(reference, None)
        self._objects.pop(reference, None)
        if key is not None:
            siblings = self._children[key]
            siblings.discard(reference)
            if not siblings:
                del self._children[key]

    def object(self, reference: Reference) -> KubeObject | None:
        """Return the object, None if it is not known."""
        return self._objects.get(reference)

    def children(self, key: Key) -> tuple[KubeObject, ...]:
        """Return the objects of a custom resource, in a stable order."""
        return tuple(self._objects[reference] for reference in sorted(self._children.get(key, ())))

    def objects(self) -> Iterable[KubeObject]:
        """Return all objects."""
        return list(self._objects.values())


def _without_managed_fields(obj: KubeObject) -> KubeObject:
    """Return `obj` without its managed fields, which are its largest part and which nothing here reads."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return {**obj, "metadata": metadata}
