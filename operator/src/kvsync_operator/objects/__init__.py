"""Builders of the Kubernetes objects of a validated resource. Pure: they use no client, no clock and no kopf."""

from typing import Any

from kvsync_operator import names
from kvsync_operator.models.document import Resource
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.objects.mockengine import build_mock_engine
from kvsync_operator.objects.prefixindex import build_prefix_index

__all__ = ["Images", "KubeObject", "build_mock_engine", "build_objects", "build_prefix_index"]


def build_objects(resource: Resource[Any], images: Images) -> list[KubeObject]:
    """Build every object of `resource`, in the order in which they should be applied."""
    if resource.kind == names.MOCK_ENGINE:
        return build_mock_engine(resource, images)
    return build_prefix_index(resource, images)
