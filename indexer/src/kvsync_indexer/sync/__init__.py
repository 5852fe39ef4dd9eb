"""How the index follows one event stream, which is one data-parallel rank of one pod.

`Follower` is the whole of it: a state machine that decides what is applied, in which order, when blocks must go and
when they can be trusted, together with the index core that holds them. Nothing here imports a socket, a clock or
asyncio; `kvsync_indexer.ingest` drives followers on real sockets, `kvsync_testkit.faults` in virtual time.
"""

from kvsync_indexer.sync.actions import (
    Action,
    Apply,
    CancelReplay,
    Clear,
    Connect,
    Disconnect,
    Log,
    Remove,
    RequestReplay,
)
from kvsync_indexer.sync.errors import ForbiddenTransitionError, SyncError
from kvsync_indexer.sync.follower import Follower, PublisherSockets, write_log
from kvsync_indexer.sync.guard import ApplyGuard, NoGuard
from kvsync_indexer.sync.machine import PublisherMachine
from kvsync_indexer.sync.states import SUSPECT, TRUSTED, Counters, PublisherStatus, State, SyncSettings
from kvsync_indexer.sync.totals import Totals
from kvsync_indexer.sync.transitions import TRANSITIONS

__all__ = [
    "SUSPECT",
    "TRANSITIONS",
    "TRUSTED",
    "Action",
    "Apply",
    "ApplyGuard",
    "CancelReplay",
    "Clear",
    "Connect",
    "Counters",
    "Disconnect",
    "Follower",
    "ForbiddenTransitionError",
    "Log",
    "NoGuard",
    "PublisherMachine",
    "PublisherSockets",
    "PublisherStatus",
    "Remove",
    "RequestReplay",
    "State",
    "SyncError",
    "SyncSettings",
    "Totals",
    "write_log",
]
