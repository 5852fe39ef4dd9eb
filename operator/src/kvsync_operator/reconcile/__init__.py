"""The decisions of the operator. Pure: this package uses no client, no clock and no kopf.

`reconcile(observed)` returns the plan of one pass: the objects to apply, the objects to delete, the new status, and the
events to post. `kvsync_operator.reconciler` executes it. Execution may be interrupted at any point, because the next
plan is derived from the state that is observed then.
"""

from kvsync_operator.reconcile.orphans import find_orphans
from kvsync_operator.reconcile.plan import reconcile
from kvsync_operator.reconcile.pool import pool_references
from kvsync_operator.reconcile.types import (
    KubeEvent,
    Observed,
    Plan,
    PoolReport,
    Problem,
    Reference,
    SyncReport,
    reference_of,
)

__all__ = [
    "KubeEvent",
    "Observed",
    "Plan",
    "PoolReport",
    "Problem",
    "Reference",
    "SyncReport",
    "find_orphans",
    "pool_references",
    "reconcile",
    "reference_of",
]
