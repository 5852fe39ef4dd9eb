"""Builders: from a validated resource to the objects it needs. Pure: no client, no clock, no kopf."""

from typing import Any

from kvsync_operator import names
from kvsync_operator.models.document import Resource
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject
from kvsync_operator.objects.mockengine import build_mock_engine
from kvsync_operator.objects.prefixindex import build_prefix_index

__all__ = ["Images", "KubeObject", "build_mock_engine", "build_objects", "build_prefix_index"]


def build_objects(resource: Resource[Any], images: Images) -> list[KubeObject]:
    """Every object of `resource`, whichever kind it is, in the order in which they are best applied."""
    if resource.kind == names.MOCK_ENGINE:
        return build_mock_engine(resource, images)
    return build_prefix_index(resource, images)
