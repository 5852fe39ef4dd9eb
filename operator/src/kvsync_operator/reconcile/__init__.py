"""The decisions of the operator: from what is observed to what is to be done. Pure.

`reconcile(observed) -> Plan` is the whole of it: no client, no clock, no kopf. Whoever carries a plan
out may be killed at any point; the next pass starts from what is there then.
"""

from kvsync_operator.reconcile.orphans import find_orphans
from kvsync_operator.reconcile.plan import reconcile
from kvsync_operator.reconcile.types import Announcement, Observed, Plan, Problem, Reference, SyncReport, reference_of

__all__ = [
    "Announcement",
    "Observed",
    "Plan",
    "Problem",
    "Reference",
    "SyncReport",
    "find_orphans",
    "reconcile",
    "reference_of",
]
