"""What a valid spec may not ask for: pods of namespaces that are not granted, and objects that no API server stores."""

from collections.abc import Iterable, Mapping
from typing import Any

from kvsync_operator import names
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.grants import Grants
from kvsync_operator.models.document import Resource
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.reconcile.ownership import is_owned
from kvsync_operator.reconcile.types import Observed, Reference, reference_of

MAX_CONFIG_MAP_BYTES = 1024 * 1024
"""The limit of the API server for the data of a ConfigMap (Kubernetes, `pkg/apis/core/validation`, MaxSecretSize)."""


def check_namespaces(resource: Resource[Any], grants: Grants) -> None:
    """Raise InvalidSpecError if a PrefixIndex selects pods in a namespace that is not granted to it."""
    if resource.kind != names.PREFIX_INDEX:
        return
    for namespace in resource.spec.namespaces:
        if not grants.allow(resource.namespace, namespace):
            raise InvalidSpecError(
                "spec.namespaces",
                f"pods of namespace {namespace!r} are not granted to indexes of namespace {resource.namespace!r}; an"
                f" administrator can add '{resource.namespace}={namespace}' to operator.crossNamespace of the chart",
            )


def check_sizes(objects: Iterable[KubeObject]) -> None:
    """Raise InvalidSpecError if a ConfigMap is larger than the API server allows."""
    for obj in objects:
        size = sum(len(key) + len(text.encode()) for key, text in obj.get("data", {}).items())
        if obj["kind"] == "ConfigMap" and size > MAX_CONFIG_MAP_BYTES:
            raise InvalidSpecError(
                "spec", f"its configuration takes {size} bytes; a ConfigMap holds at most {MAX_CONFIG_MAP_BYTES}"
            )


def ungranted_objects(observed: Observed) -> tuple[Reference, ...]:
    """The live objects of the resource in namespaces that are not granted to it."""
    home = observed.document["metadata"]["namespace"]

    def stays(child: Mapping[str, Any]) -> bool:
        return observed.grants.allow(home, child["metadata"].get("namespace") or home)

    found = [child for child in observed.children if is_owned(observed.document, child) and not stays(child)]
    return tuple(sorted(reference_of(child) for child in found if not child["metadata"].get("deletionTimestamp")))
