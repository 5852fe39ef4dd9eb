"""The publisher state machine (sans-IO): inputs in, typed actions out.

It decides, for one (pod, rank), what is applied, in which order, when the blocks must go and when they can be
trusted. It imports no socket, no clock and no asyncio; `kvsync_indexer.ingest` drives it.
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
from kvsync_indexer.sync.machine import PublisherMachine
from kvsync_indexer.sync.states import SUSPECT, TRUSTED, Counters, PublisherStatus, State, SyncSettings

__all__ = [
    "SUSPECT",
    "TRUSTED",
    "Action",
    "Apply",
    "CancelReplay",
    "Clear",
    "Connect",
    "Counters",
    "Disconnect",
    "Log",
    "PublisherMachine",
    "PublisherStatus",
    "Remove",
    "RequestReplay",
    "State",
    "SyncSettings",
]
