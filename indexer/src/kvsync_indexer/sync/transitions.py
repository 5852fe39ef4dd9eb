"""Which state may follow which: the one source for the check at run time and for the diagram in the documentation."""

from collections.abc import Mapping
from typing import Final

from kvsync_indexer.sync.states import State

INTERRUPTIONS: Final[frozenset[State]] = frozenset({State.CONNECTING, State.STALE, State.QUARANTINED, State.REMOVED})
"""What can happen to a publisher that is being followed, whatever it is doing."""

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.CONNECTING: (INTERRUPTIONS | {State.REPLAYING, State.LIVE}) - {State.CONNECTING},
    State.REPLAYING: INTERRUPTIONS | {State.LIVE, State.GAP, State.RESYNCING, State.RESTART},
    State.LIVE: INTERRUPTIONS | {State.GAP, State.RESTART, State.RESYNCING},
    State.GAP: INTERRUPTIONS | {State.LIVE, State.RESYNCING, State.RESTART},
    State.RESTART: INTERRUPTIONS | {State.LIVE, State.RESYNCING},
    State.RESYNCING: INTERRUPTIONS | {State.LIVE, State.GAP, State.RESTART},
    State.STALE: (INTERRUPTIONS | {State.LIVE, State.RESYNCING}) - {State.STALE},
    State.QUARANTINED: frozenset({State.RESYNCING, State.CONNECTING, State.REMOVED}),
    State.REMOVED: frozenset(),
}
"""The states that each state may be followed by. A state never follows itself: that is no transition."""

CAUSES: Final[Mapping[State, str]] = {
    State.CONNECTING: "the connection ended, or discovery named another epoch",
    State.REPLAYING: "the first connection is up",
    State.LIVE: "every known batch is applied",
    State.GAP: "sequence numbers are missing, or live batches do not arrive",
    State.RESTART: "another process answers",
    State.STALE: "no sign of life for stale_after_s",
    State.QUARANTINED: "something cannot be decoded",
    State.RESYNCING: "history is being applied again",
    State.REMOVED: "discovery no longer names the publisher",
}
"""Why a state is entered."""
