"""What every built object shares: labels, owner, names, and the hash that shows a change of intent.

An object is a plain dict as the API takes it. The spec-hash annotation covers the whole object, so a
field that leaves the intent changes the hash, the object is applied again, and server-side apply takes
the field away.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.document import Resource

__all__ = ["KubeObject", "build_object", "hash_of", "index_labels", "instance_labels", "selector_text", "stamped"]

KubeObject = dict[str, Any]

_APP_NAMES = {names.MOCK_ENGINE: "mock-engine", names.PREFIX_INDEX: "prefix-index"}


def hash_of(data: object) -> str:
    """16 hex digits over the canonical JSON of `data`."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def selector_labels(resource: Resource[Any]) -> dict[str, str]:
    """The labels by which a workload finds its pods; never changed, since selectors are immutable."""
    key = names.LABEL_ENGINE if resource.kind == names.MOCK_ENGINE else names.LABEL_INDEX
    return {names.LABEL_NAME: _APP_NAMES[resource.kind], key: resource.name}


def instance_labels(resource: Resource[Any]) -> dict[str, str]:
    """The labels of every object of `resource`."""
    return {
        **selector_labels(resource),
        names.LABEL_INSTANCE: resource.name,
        names.LABEL_COMPONENT: "engine" if resource.kind == names.MOCK_ENGINE else "index",
        names.LABEL_PART_OF: "kvsync",
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
    }


def index_labels() -> dict[str, str]:
    """The label all index pods have, whatever their name; network policies admit by it."""
    return {names.LABEL_NAME: _APP_NAMES[names.PREFIX_INDEX]}


def selector_text(labels: Mapping[str, str]) -> str:
    """`labels` in the form of a label selector, as the scale subresource shows it."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def owner_reference(resource: Resource[Any]) -> dict[str, Any]:
    """The reference by which the garbage collector deletes an object with its owner."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": resource.kind,
        "name": resource.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def build_object(
    resource: Resource[Any],
    api_version: str,
    kind: str,
    name: str,
    body: Mapping[str, Any],
    namespace: str | None = None,
) -> KubeObject:
    """An object of `resource`, stamped. In a foreign `namespace` it has labels that say whose it is, and no owner."""
    target = namespace or resource.namespace
    metadata: dict[str, Any] = {"name": name, "namespace": target, "labels": instance_labels(resource)}
    if target == resource.namespace:
        metadata["ownerReferences"] = [owner_reference(resource)]
    else:
        metadata["labels"][names.LABEL_HOME] = resource.namespace
    return stamped({"apiVersion": api_version, "kind": kind, "metadata": metadata, **body})


def stamped(obj: KubeObject) -> KubeObject:
    """`obj` with the hash of its own content as an annotation."""
    annotations = obj["metadata"].setdefault("annotations", {})
    annotations[names.ANNOTATION_SPEC_HASH] = hash_of(obj)
    return obj
