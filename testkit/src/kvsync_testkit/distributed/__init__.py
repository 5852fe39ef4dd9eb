"""Two instances with a leader each: one that has computed blocks (prefill) and one that pulls them (decode).

A leader keeps the tables of its host (G2) and disk (G3) tiers; its workers keep the bytes, each its own shard of every
block. Leaders talk over real ZMQ sockets, and a session moves real bytes from one instance's workers to the other's.
"""

from kvsync_testkit.distributed.building import (
    LeaderPair,
    LeaderPairBuilder,
    create_instance_leader_pair,
    create_instance_leader_pair_with_workers,
    populate_leader_with_blocks,
)
from kvsync_testkit.distributed.holding import SessionPhase
from kvsync_testkit.distributed.leader import InstanceLeader
from kvsync_testkit.distributed.protocol import G2Block
from kvsync_testkit.distributed.pulling import PullReport
from kvsync_testkit.distributed.searching import LocatedBlock, ScanResult, find_matches, scan_blocks
from kvsync_testkit.distributed.session import TestSession
from kvsync_testkit.distributed.workers import InstanceWorker

__all__ = [
    "G2Block",
    "InstanceLeader",
    "InstanceWorker",
    "LeaderPair",
    "LeaderPairBuilder",
    "LocatedBlock",
    "PullReport",
    "ScanResult",
    "SessionPhase",
    "TestSession",
    "create_instance_leader_pair",
    "create_instance_leader_pair_with_workers",
    "find_matches",
    "populate_leader_with_blocks",
    "scan_blocks",
]
