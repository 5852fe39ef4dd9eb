"""The operator, which runs mock engines and prefix indexes from custom resources.

The names exported here validate a resource, build its Kubernetes objects, and decide what one reconcile pass does. None
of them needs a cluster: `kvsync up` uses them to run a resource on one machine. The process that serves a cluster is
`kvsync-operator`.
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
