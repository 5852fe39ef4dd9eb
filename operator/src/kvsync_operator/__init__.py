"""Runs mock engines and prefix indexes from custom resources.

The public surface: validate a document, build its objects, decide a pass. `kvsync up` builds the same
objects without a cluster. The operator process itself is `kvsync-operator`.
"""

from kvsync_operator.errors import InvalidSpecError, OperatorError
from kvsync_operator.models import MockEngineSpec, PrefixIndexSpec, Resource, parse_resource
from kvsync_operator.objects import Images, build_objects
from kvsync_operator.reconcile import Observed, Plan, reconcile

__all__ = [
    "Images",
    "InvalidSpecError",
    "MockEngineSpec",
    "Observed",
    "OperatorError",
    "Plan",
    "PrefixIndexSpec",
    "Resource",
    "build_objects",
    "parse_resource",
    "reconcile",
]
