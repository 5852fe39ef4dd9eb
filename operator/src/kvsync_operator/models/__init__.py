"""The custom resources as frozen pydantic models: the one source of the CRDs and of their documentation."""

from kvsync_operator.models.common import Condition, Model, PodTemplate, duration_seconds
from kvsync_operator.models.document import Resource, parse_resource
from kvsync_operator.models.mockengine import MockEngineSpec, MockEngineStatus
from kvsync_operator.models.prefixindex import PrefixIndexSpec, PrefixIndexStatus, PublisherCounts

__all__ = [
    "Condition",
    "MockEngineSpec",
    "MockEngineStatus",
    "Model",
    "PodTemplate",
    "PrefixIndexSpec",
    "PrefixIndexStatus",
    "PublisherCounts",
    "Resource",
    "duration_seconds",
    "parse_resource",
]
