"""Objects in foreign namespaces whose PrefixIndex is gone.

Owner references do not reach across namespaces and we use no finalizer (one would hold a deletion up
whenever the operator is away), so such objects say in labels whose they are, and are swept.
"""

from collections.abc import Collection, Iterable

from kvsync_operator import names
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.reconcile.types import Reference, reference_of

__all__ = ["find_orphans"]


def find_orphans(objects: Iterable[KubeObject], indexes: Collection[tuple[str, str]]) -> list[Reference]:
    """Objects that belong to a PrefixIndex in another namespace which is not among `indexes` (namespace, name)."""
    orphans = []
    for obj in objects:
        labels = obj["metadata"].get("labels") or {}
        home, name = labels.get(names.LABEL_HOME), labels.get(names.LABEL_INDEX)
        ours = labels.get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER
        if ours and home is not None and name is not None and (home, name) not in indexes:
            orphans.append(reference_of(obj))
    return sorted(orphans)
