"""The metadata of every built object: labels, owner reference, and the spec hash.

An object is a plain dict in the form of the API. The spec-hash annotation covers the whole desired object. Hence the
hash also changes when a field is no longer desired; the object is applied again, and server-side apply removes the
field.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.document import Resource

KubeObject = dict[str, Any]

_APP_NAMES = {names.MOCK_ENGINE: "mock-engine", names.PREFIX_INDEX: "prefix-index"}


def hash_of(data: object) -> str:
    """Return 16 hex digits of the SHA-256 of the canonical JSON of `data`."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def resource_version(obj: Mapping[str, Any]) -> int:
    """Return the resource version of an object as an integer, 0 if it has none or one that is not a number."""
    text = str(obj["metadata"].get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def selector_labels(resource: Resource[Any]) -> dict[str, str]:
    """Return the labels by which a workload selects its pods. They must never change: selectors are immutable."""
    key = names.LABEL_ENGINE if resource.kind == names.MOCK_ENGINE else names.LABEL_INDEX
    return {names.LABEL_NAME: _APP_NAMES[resource.kind], key: resource.name}


def instance_labels(resource: Resource[Any]) -> dict[str, str]:
    """Return the labels of every object of `resource`."""
    return {
        **selector_labels(resource),
        names.LABEL_INSTANCE: resource.name,
        names.LABEL_COMPONENT: "engine" if resource.kind == names.MOCK_ENGINE else "index",
        names.LABEL_PART_OF: "kvsync",
        names.LABEL_MANAGED_BY: names.FIELD_MANAGER,
    }


def index_labels() -> dict[str, str]:
    """Return the label that the pods of every PrefixIndex have, and by which network policies admit them."""
    return {names.LABEL_NAME: _APP_NAMES[names.PREFIX_INDEX]}


def selector_text(labels: Mapping[str, str]) -> str:
    """Return `labels` as the text of a label selector, as the scale subresource requires it."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def owner_reference(resource: Resource[Any]) -> dict[str, Any]:
    """Return the owner reference by which the garbage collector deletes an object together with `resource`."""
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
    """Build an object of `resource`, with its spec hash.

    Owner references cannot cross namespaces. An object in another `namespace` than that of its resource therefore has
    a label with the namespace of the resource instead.
    """
    target = namespace or resource.namespace
    metadata: dict[str, Any] = {"name": name, "namespace": target, "labels": instance_labels(resource)}
    if target == resource.namespace:
        metadata["ownerReferences"] = [owner_reference(resource)]
    else:
        metadata["labels"][names.LABEL_INDEX_NAMESPACE] = resource.namespace
    return with_spec_hash({"apiVersion": api_version, "kind": kind, "metadata": metadata, **body})


def has_spec_of(live: Mapping[str, Any], desired: Mapping[str, Any]) -> bool:
    """Return whether `live` was last applied from exactly the object `desired`, according to their spec hashes."""
    hashes = [obj["metadata"].get("annotations", {}).get(names.ANNOTATION_SPEC_HASH) for obj in (desired, live)]
    return bool(hashes[0] == hashes[1])


def with_spec_hash(obj: KubeObject) -> KubeObject:
    """Add the hash of the content of `obj` to `obj` as an annotation, and return `obj`."""
    annotations = obj["metadata"].setdefault("annotations", {})
    annotations[names.ANNOTATION_SPEC_HASH] = hash_of(obj)
    return obj
