"""The result of a comparison of replicas, as `kvsync audit --replicas --json` prints it."""

from typing import Literal, TypeAlias

import msgspec

Verdict: TypeAlias = Literal["equal", "repaired", "different", "inconclusive"]
"""`repaired`: they differed, those that the engine contradicted applied its history again, and all are equal now.
`inconclusive`: no common position was reached in time."""


class ReplicaState(msgspec.Struct, kw_only=True):
    """One publisher in one replica."""

    url: str
    state: str = "absent"
    """State of the publisher; `absent` if the replica does not follow it."""
    blocks: int = 0
    """Blocks at the position that was compared; without one, the blocks now."""
    incomplete: bool = False
    """The publisher may hold more than this replica knows."""
    against_engine: str = ""
    """Verdict of the replica's own audit against the engine; empty if none was needed."""
    resynced: bool = False
    """The replica was asked to apply the publisher's history again."""


class ReplicaAudit(msgspec.Struct, kw_only=True):
    """The verdict on one publisher."""

    publisher: str
    verdict: Verdict
    position: int | None = None
    """Sequence number at which the replicas were compared."""
    detail: str = ""
    """Why the verdict is not `equal`, in one line."""
    replicas: list[ReplicaState]


class ReplicaReport(msgspec.Struct, kw_only=True):
    """Every publisher of any replica, and the sums over them."""

    replicas: list[str]
    """URLs of the replicas."""
    publishers: list[ReplicaAudit]
    compared: int
    """Publishers that were compared at a common position."""
    differences: int
    """Publishers whose replicas still differ."""
    repaired: int
    equal: bool
    """All replicas hold the same blocks of every publisher now."""
