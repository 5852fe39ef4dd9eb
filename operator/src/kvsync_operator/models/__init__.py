"""The custom resources as frozen pydantic models, from which the CRDs and their reference are generated."""

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
