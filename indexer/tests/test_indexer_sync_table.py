"""Every input in every state: the next state and what the driver is asked to do.

`-` stays in the state. Log lines are left out. Where a replay is in progress it asked for what follows batch 9.
"""

import pytest
from sync_helpers import INPUTS, SETTINGS, Bench, in_state

from kvsync_indexer.sync import State

TABLE = {
    State.CONNECTING: {
        "connected": ("replaying", "RequestReplay"),
        "connected, old link": ("-", ""),
        "disconnected": ("-", ""),
        "disconnected, old link": ("-", ""),
        "frame, next": ("replaying", "RequestReplay"),
        "frame, ahead": ("replaying", "RequestReplay"),
        "frame, applied before": ("replaying", "RequestReplay"),
        "frame, other bytes": ("restart", "RequestReplay CancelReplay Clear RequestReplay"),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", ""),
        "item, ahead": ("-", ""),
        "item, applied before": ("-", ""),
        "item, other bytes": ("-", ""),
        "item, old attempt": ("-", ""),
        "end": ("-", ""),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", ""),
        "apply failed": ("quarantined", "Disconnect"),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("-", "Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", "Connect"),
        "tick, nothing heard": ("stale", "Connect"),
        "removed": ("removed", "Disconnect Remove"),
    },
    State.REPLAYING: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("connecting", "CancelReplay Disconnect"),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", ""),
        "frame, ahead": ("-", ""),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("-", ""),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "CancelReplay Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", "Apply"),
        "item, ahead": ("-", "Apply"),
        "item, applied before": ("-", "Apply"),
        "item, other bytes": ("-", "Apply"),
        "item, old attempt": ("-", ""),
        "end": ("live", ""),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", "CancelReplay RequestReplay"),
        "apply failed": ("resyncing", "CancelReplay Clear RequestReplay"),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "CancelReplay Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", "CancelReplay RequestReplay"),
        "tick, nothing heard": ("stale", "CancelReplay RequestReplay CancelReplay"),
        "removed": ("removed", "CancelReplay Disconnect Remove"),
    },
    State.LIVE: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("connecting", "Disconnect"),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", "Apply"),
        "frame, ahead": ("gap", "RequestReplay"),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("restart", "Clear RequestReplay"),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", ""),
        "item, ahead": ("-", ""),
        "item, applied before": ("-", ""),
        "item, other bytes": ("-", ""),
        "item, old attempt": ("-", ""),
        "end": ("-", ""),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", ""),
        "apply failed": ("quarantined", "Disconnect"),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", "RequestReplay"),
        "tick, nothing heard": ("stale", ""),
        "removed": ("removed", "Disconnect Remove"),
    },
    State.GAP: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("connecting", "CancelReplay Disconnect"),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", ""),
        "frame, ahead": ("-", ""),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("restart", "CancelReplay Clear RequestReplay"),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "CancelReplay Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("resyncing", "Apply"),
        "item, ahead": ("resyncing", "Clear Apply"),
        "item, applied before": ("resyncing", ""),
        "item, other bytes": ("restart", "CancelReplay Clear RequestReplay"),
        "item, old attempt": ("-", ""),
        "end": ("-", "CancelReplay RequestReplay"),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", "CancelReplay RequestReplay"),
        "apply failed": ("resyncing", "CancelReplay Clear RequestReplay"),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "CancelReplay Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", "CancelReplay RequestReplay"),
        "tick, nothing heard": ("stale", "CancelReplay RequestReplay CancelReplay"),
        "removed": ("removed", "CancelReplay Disconnect Remove"),
    },
    State.RESTART: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("connecting", "CancelReplay Disconnect"),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", ""),
        "frame, ahead": ("-", ""),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("-", ""),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "CancelReplay Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("resyncing", "Apply"),
        "item, ahead": ("resyncing", "Apply"),
        "item, applied before": ("resyncing", "Apply"),
        "item, other bytes": ("-", "CancelReplay Clear RequestReplay"),
        "item, old attempt": ("-", ""),
        "end": ("-", "CancelReplay RequestReplay"),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", "CancelReplay RequestReplay"),
        "apply failed": ("resyncing", "CancelReplay Clear RequestReplay"),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "CancelReplay Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", "CancelReplay RequestReplay"),
        "tick, nothing heard": ("stale", "CancelReplay RequestReplay CancelReplay"),
        "removed": ("removed", "CancelReplay Disconnect Remove"),
    },
    State.STALE: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("-", "Disconnect"),
        "disconnected, old link": ("-", ""),
        "frame, next": ("resyncing", "RequestReplay"),
        "frame, ahead": ("resyncing", "RequestReplay"),
        "frame, applied before": ("resyncing", "RequestReplay"),
        "frame, other bytes": ("restart", "RequestReplay CancelReplay Clear RequestReplay"),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", ""),
        "item, ahead": ("-", ""),
        "item, applied before": ("-", ""),
        "item, other bytes": ("-", ""),
        "item, old attempt": ("-", ""),
        "end": ("-", ""),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", ""),
        "apply failed": ("quarantined", "Disconnect"),
        "alive": ("resyncing", "RequestReplay"),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", ""),
        "tick, nothing heard": ("-", ""),
        "removed": ("removed", "Disconnect Remove"),
    },
    State.QUARANTINED: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("-", ""),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", ""),
        "frame, ahead": ("-", ""),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("-", ""),
        "frame, old link": ("-", ""),
        "bad frame": ("-", ""),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", ""),
        "item, ahead": ("-", ""),
        "item, applied before": ("-", ""),
        "item, other bytes": ("-", ""),
        "item, old attempt": ("-", ""),
        "end": ("-", ""),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", ""),
        "apply failed": ("-", ""),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("resyncing", "Connect"),
        "tick, nothing heard": ("resyncing", "Connect"),
        "removed": ("removed", "Disconnect Remove"),
    },
    State.RESYNCING: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("connecting", "CancelReplay Disconnect"),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", ""),
        "frame, ahead": ("-", ""),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("restart", "CancelReplay Clear RequestReplay"),
        "frame, old link": ("-", ""),
        "bad frame": ("quarantined", "CancelReplay Disconnect"),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", "Apply"),
        "item, ahead": ("-", "Clear Apply"),
        "item, applied before": ("-", ""),
        "item, other bytes": ("restart", "CancelReplay Clear RequestReplay"),
        "item, old attempt": ("-", ""),
        "end": ("-", "RequestReplay"),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", "CancelReplay RequestReplay"),
        "apply failed": ("-", "CancelReplay Clear RequestReplay"),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("connecting", "CancelReplay Clear Connect"),
        "tick": ("-", ""),
        "tick, replay silent": ("-", "CancelReplay RequestReplay"),
        "tick, nothing heard": ("stale", "CancelReplay RequestReplay CancelReplay"),
        "removed": ("removed", "CancelReplay Disconnect Remove"),
    },
    State.REMOVED: {
        "connected": ("-", ""),
        "connected, old link": ("-", ""),
        "disconnected": ("-", ""),
        "disconnected, old link": ("-", ""),
        "frame, next": ("-", ""),
        "frame, ahead": ("-", ""),
        "frame, applied before": ("-", ""),
        "frame, other bytes": ("-", ""),
        "frame, old link": ("-", ""),
        "bad frame": ("-", ""),
        "bad frame, old link": ("-", ""),
        "item, next": ("-", ""),
        "item, ahead": ("-", ""),
        "item, applied before": ("-", ""),
        "item, other bytes": ("-", ""),
        "item, old attempt": ("-", ""),
        "end": ("-", ""),
        "end, old attempt": ("-", ""),
        "replay failed": ("-", ""),
        "apply failed": ("-", ""),
        "alive": ("-", ""),
        "same epoch": ("-", ""),
        "new epoch": ("-", ""),
        "tick": ("-", ""),
        "tick, replay silent": ("-", ""),
        "tick, nothing heard": ("-", ""),
        "removed": ("-", ""),
    },
}  # fmt: skip


def test_the_table_is_complete():
    assert set(TABLE) == set(State)
    for state, row in TABLE.items():
        assert set(row) == set(INPUTS), state


@pytest.mark.parametrize("state", list(State), ids=str)
@pytest.mark.parametrize("what", list(INPUTS))
def test_every_input_in_every_state(state, what):
    bench = in_state(state, epoch="e1")
    before = bench.machine.counters.transitions
    INPUTS[what](bench)
    after, actions = TABLE[state][what]
    assert bench.machine.state is (state if after == "-" else State(after))
    assert " ".join(bench.names()) == actions
    assert bench.machine.reason
    if after != "-":
        assert bench.machine.counters.transitions > before
        assert any(getattr(each, "event", "") == "publisher_state" for each in bench.actions)


@pytest.mark.parametrize("state", list(State), ids=str)
def test_only_live_is_trusted(state):
    assert in_state(state).machine.trusted is (state is State.LIVE)


@pytest.mark.parametrize("state", list(State), ids=str)
@pytest.mark.parametrize("what", list(INPUTS))
def test_no_input_applies_out_of_order(state, what):
    bench = in_state(state, epoch="e1")
    machine = bench.machine
    before, incarnation = machine.next_seq, machine.standing.incarnation
    INPUTS[what](bench)
    if machine.standing.incarnation == incarnation and what != "apply failed":
        assert machine.next_seq >= before


def test_the_live_batches_of_a_successor_prove_nothing():
    """It goes on exactly where its predecessor ended, and its history no longer reaches back to where they differ."""
    bench = Bench().live(5)
    bench.do(bench.machine.disconnected(bench.machine.link, bench.now))
    bench.tick(SETTINGS.reconnect_max_s)
    bench.connected()
    bench.process = "b"
    bench.frame(5)
    bench.frame(6)
    bench.item(6)
    assert bench.names()[0] == "Clear"
    assert bench.machine.incomplete
    bench.end()
    assert bench.machine.state is State.LIVE
    assert bench.machine.next_seq == 7
