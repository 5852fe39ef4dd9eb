"""Detection of objects whose PrefixIndex, in another namespace, no longer exists.

Owner references cannot cross namespaces, and a finalizer would block deletion while the operator is not running. Such
objects therefore carry labels that name their PrefixIndex, and the operator deletes them after it.
"""

from collections.abc import Collection, Iterable

from kvsync_operator import names
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.reconcile.types import Reference, reference_of


def find_orphans(objects: Iterable[KubeObject], indexes: Collection[tuple[str, str]]) -> list[Reference]:
    """Return the objects that belong to a PrefixIndex of another namespace which is not in `indexes`.

    Args:
        objects: The objects to search.
        indexes: (namespace, name) of every PrefixIndex that exists.
    """
    orphans = []
    for obj in objects:
        labels = obj["metadata"].get("labels") or {}
        home, name = labels.get(names.LABEL_INDEX_NAMESPACE), labels.get(names.LABEL_INDEX)
        managed = labels.get(names.LABEL_MANAGED_BY) == names.FIELD_MANAGER
        if managed and home is not None and name is not None and (home, name) not in indexes:
            orphans.append(reference_of(obj))
    return sorted(orphans)
