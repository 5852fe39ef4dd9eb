"""The rule by which an object belongs to a custom resource."""

from collections.abc import Mapping
from typing import Any

from kvsync_operator import names


def is_owned(document: Mapping[str, Any], obj: Mapping[str, Any]) -> bool:
    """Return whether `obj` belongs to the custom resource `document`.

    In its own namespace the uid of the owner decides, so an object of a deleted resource with the same name does not
    belong to its successor. In another namespace, where there is no owner reference, the labels decide.
    """
    home, metadata = document["metadata"], obj["metadata"]
    if metadata.get("namespace") == home["namespace"]:
        return any(owner.get("uid") == home["uid"] for owner in metadata.get("ownerReferences") or ())
    labels = metadata.get("labels") or {}
    return (
        labels.get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER
        and labels.get(names.LABEL_INDEX_NAMESPACE) == home["namespace"]
        and labels.get(names.LABEL_INDEX) == home["name"]
    )
