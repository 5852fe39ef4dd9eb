"""Whose an object is."""

from collections.abc import Mapping
from typing import Any

from kvsync_operator import names

__all__ = ["is_owned"]


def is_owned(document: Mapping[str, Any], obj: Mapping[str, Any]) -> bool:
    """Whether `obj` belongs to this very custom resource, not to a namesake before it nor to somebody else."""
    home, metadata = document["metadata"], obj["metadata"]
    if metadata.get("namespace") == home["namespace"]:
        return any(owner.get("uid") == home["uid"] for owner in metadata.get("ownerReferences") or ())
    labels = metadata.get("labels") or {}
    return (
        labels.get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER
        and labels.get(names.LABEL_HOME) == home["namespace"]
        and labels.get(names.LABEL_INDEX) == home["name"]
    )
