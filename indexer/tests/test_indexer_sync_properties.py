"""Properties of the state machine that hold for any input."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sync_helpers import INPUTS, Bench, batch, in_state

from kvsync_indexer.sync import TRANSITIONS, Apply, State


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)), max_size=12))
def test_runs_do_what_single_frames_do(runs):
    """`frames` is a quicker `frame`: the same payloads in the same order, the same state."""
    outcomes = []
    for whole in (True, False):
        bench = Bench().live(4)
        applied = []
        for first, count in runs:
            payloads = [batch(seq) for seq in range(first, first + count)]
            if whole:
                bench.do(bench.machine.frames(bench.machine.link, first, payloads, bench.now))
                applied += bench.applied()
                continue
            for seq, payload in enumerate(payloads, first):
                bench.do(bench.machine.frame(bench.machine.link, seq, payload, bench.now))
                applied += bench.applied()
        status = bench.machine.status(bench.now)
        outcomes.append((applied, status, bench.machine.position.tail()))
    assert outcomes[0] == outcomes[1]


@settings(max_examples=300)
@given(st.sampled_from(list(State)), st.lists(st.sampled_from(sorted(INPUTS)), max_size=30), st.booleans())
def test_any_inputs_keep_to_the_table_and_to_the_order(state, inputs, quick):
    """A transition outside the table would raise; applied numbers rise as long as the blocks are kept."""
    bench = in_state(state, epoch="e1")
    last = bench.machine.next_seq - 1
    for what in inputs:
        INPUTS[what](bench)
        for action in bench.actions:
            if type(action).__name__ == "Clear":
                last = -1
            elif isinstance(action, Apply):
                assert action.first_seq > last
                last = action.first_seq + len(action.payloads) - 1
        if what == "apply failed":
            last = min(last, bench.machine.next_seq - 1)
        if quick:
            bench.now += 0.01
    assert bench.machine.trusted is (bench.machine.state is State.LIVE)


def transitions_of(bench):
    """The transitions of the last answer, from its log lines."""
    logged = [one.fields for one in bench.actions if getattr(one, "event", "") == "publisher_state"]
    return {(State(one["before"]), State(one["after"])) for one in logged}


def transitions_of_pairs(state, **how):
    """The transitions that every pair of inputs makes from a state."""
    seen = set()
    for first in INPUTS:
        for second in INPUTS:
            bench = in_state(state, epoch="e1", **how)
            for what in (first, second):
                INPUTS[what](bench)
                seen |= transitions_of(bench)
    return seen


def transitions_of_a_repair():
    """A history that began too late is rebuilt when the server shows its beginning."""
    bench = Bench()
    bench.start()
    bench.connected()
    bench.item(1)
    bench.end()
    bench.tick(bench.machine.settings.repair_s)
    bench.item(0)
    return transitions_of(bench)


def transitions_of_deafness():
    """Whatever a deaf publisher loses and regains, it is not trusted before a live batch arrives."""
    bench, seen = Bench().live(), set()

    def catch_up():
        nonlocal seen
        for seq in range(bench.machine.next_seq - 1, bench.machine.next_seq + 1):
            bench.item(seq)
            seen |= transitions_of(bench)
        bench.end()
        seen |= transitions_of(bench)

    for _ in range(2):
        bench.tick(bench.machine.settings.verify_after_s)
        catch_up()
    bench.do(bench.machine.disconnected(bench.machine.link, bench.now))
    bench.tick(bench.machine.settings.reconnect_s)
    bench.connected()
    catch_up()
    bench.tick(bench.machine.settings.stale_after_s + 0.1)
    bench.do(bench.machine.alive(bench.now, bench.now))
    catch_up()
    return seen


def test_every_transition_of_the_table_can_happen_and_no_other():
    seen = transitions_of_a_repair() | transitions_of_deafness()
    for state in State:
        seen |= transitions_of_pairs(state)
    for state in (State.CONNECTING, State.LIVE, State.GAP, State.STALE, State.QUARANTINED):
        seen |= transitions_of_pairs(state, replay=False)
    assert seen == {(before, after) for before, targets in TRANSITIONS.items() for after in targets}
