"""Each part of the state machine alone: back-offs, limits, and the one place where the state changes."""

import pytest

from kvsync_indexer.sync import TRANSITIONS, ForbiddenTransitionError, State, SyncSettings
from kvsync_indexer.sync.connection import Connection
from kvsync_indexer.sync.diagram import BEGIN, END, diagram, main
from kvsync_indexer.sync.outbox import Outbox
from kvsync_indexer.sync.quarantine import Quarantine
from kvsync_indexer.sync.repair import Repair
from kvsync_indexer.sync.session import Purpose, Replays
from kvsync_indexer.sync.standing import Standing
from kvsync_indexer.sync.stream import Stream
from kvsync_indexer.sync.verification import Verification

SETTINGS = SyncSettings(
    reconnect_s=1.0, reconnect_max_s=4.0, quarantine_s=1.0, quarantine_max_s=4.0, quarantine_reset_s=10.0,
    poison_limit=2, flap_limit=2, flap_window_s=5.0, repair_s=1.0, repair_max_s=4.0, repairs=2, overlap=3,
    replay_timeout_s=2.0, verify_after_s=1.0, verify_idle_s=5.0,
)  # fmt: skip


@pytest.mark.parametrize("before", list(State), ids=str)
@pytest.mark.parametrize("after", list(State), ids=str)
def test_the_table_of_transitions_is_enforced(before, after):
    outbox = Outbox()
    standing = Standing("p", None, outbox, 0.0)
    standing.state = before
    if after is before:
        standing.go(after, "why", 1.0)
        assert outbox.take() == []
        assert standing.reason == "why"
    elif after in TRANSITIONS[before]:
        standing.go(after, "why", 1.0)
        assert (standing.state, standing.since, standing.counters.transitions) == (after, 1.0, 1)
        assert outbox.take()[0].fields == {
            "publisher": "p", "before": str(before), "after": str(after), "reason": "why",
        }  # fmt: skip
    else:
        with pytest.raises(ForbiddenTransitionError, match=f"p: {before} must not become {after}"):
            standing.go(after, "why", 1.0)
        assert standing.state is before


def test_the_diagram_is_the_table(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(f"above\n{BEGIN}\nold\n{END}\nbelow\n")
    assert main(["--check", str(page)]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([str(page)]) == 0
    assert main(["--check", str(page)]) == 0
    assert page.read_text() == f"above\n{BEGIN}\n{diagram()}\n{END}\nbelow\n"
    assert "live --> gap: sequence numbers are missing" in diagram()
    assert "replaying --> stale" not in diagram()


def test_pauses_between_connections_double_until_one_has_lasted():
    connection = Connection(SETTINGS)
    pauses = []
    for live_s in (0.0, 0.0, 0.0, 0.0, 5.0):
        connection.lost(100.0, live_s)
        pauses.append(next(pause for pause in (1.0, 2.0, 4.0) if connection.retry_due(100.0 + pause)))
        assert not connection.retry_due(200.0)
    assert pauses == [1.0, 2.0, 4.0, 4.0, 1.0]
    assert connection.link == 5


def test_an_abandoned_link_is_not_retried():
    connection = Connection(SETTINGS)
    connection.lost(100.0, 0.0)
    connection.renew()
    assert not connection.retry_due(200.0)
    assert (connection.link, connection.up) == (2, False)


def test_quarantines_double_until_good_behaviour():
    quarantine = Quarantine(SETTINGS)
    assert [quarantine.impose(0.0) for _ in range(4)] == [1.0, 2.0, 4.0, 4.0]
    assert quarantine.active
    assert not quarantine.over(3.9)
    assert quarantine.over(4.0)
    assert not quarantine.over(4.1)
    quarantine.credit(10.0)
    assert quarantine.impose(0.0) == 4.0
    quarantine.credit(10.1)
    assert quarantine.impose(0.0) == 1.0
    quarantine.lift()
    assert not quarantine.active
    assert quarantine.impose(0.0) == 1.0


def test_a_resync_may_skip_a_limited_number_of_batches():
    quarantine = Quarantine(SETTINGS)
    assert [quarantine.may_skip() for _ in range(3)] == [True, True, False]
    quarantine.synced()
    assert quarantine.may_skip()


def test_restarts_in_quick_succession_are_flaps():
    quarantine = Quarantine(SETTINGS)
    assert [quarantine.flaps(at) for at in (0.0, 1.0, 4.9)] == [False, False, True]
    assert [quarantine.flaps(at) for at in (10.0, 11.0, 15.0)] == [False, False, False]


def test_repairs_of_an_answering_server_are_limited():
    repair = Repair(SETTINGS)
    for at in (0.0, 10.0):
        repair.plan_after_sync(at)
        repair.plan_after_sync(at + 0.5)  # one is planned already
        assert not repair.due(at + 0.9)
        assert repair.due(at + 1.0)
        repair.done()
    repair.plan_after_sync(20.0)
    assert not repair.due(100.0)
    repair.forget()
    repair.plan_after_sync(100.0)
    assert repair.due(101.0)


def test_repairs_of_a_silent_server_back_off_without_end():
    repair = Repair(SETTINGS)
    repair.plan_after_outage(0.0)
    assert repair.due(1.0)
    for pause in (2.0, 4.0, 4.0):
        repair.failed(10.0)
        assert not repair.due(10.0 + pause - 0.1)
        assert repair.due(10.0 + pause)
    repair.exhausted()
    repair.plan_after_sync(20.0)
    assert not repair.due(100.0)


def test_a_history_that_begins_where_the_known_one_does_is_not_asked_for_again():
    repair = Repair(SETTINGS)
    repair.plan_after_outage(0.0)
    repair.nothing_older(7, 7, 1.0)
    assert not repair.due(100.0)
    repair.plan_after_sync(100.0)
    assert not repair.due(200.0)


def test_a_history_that_begins_behind_the_known_one_is_asked_for_a_few_times():
    repair = Repair(SETTINGS)
    repair.plan_after_outage(0.0)
    for at in (1.0, 10.0):
        repair.nothing_older(9, 7, at)
        assert not repair.due(at + 0.9)
        assert repair.due(at + 1.0)
    repair.nothing_older(9, 7, 20.0)
    assert not repair.due(100.0)


def test_a_link_is_verified_once_and_then_when_it_is_quiet():
    verification = Verification(SETTINGS, 0.0)
    verification.live(0.0)
    assert not verification.due(0.9)
    assert verification.due(1.0)
    verification.done(1.0)
    verification.frame_at = 3.0
    assert not verification.due(7.9)
    assert verification.due(8.0)
    verification.done(8.0)
    verification.peer_joined(9.0)
    assert not verification.due(9.9)
    assert verification.due(10.0)


def test_where_a_replay_begins():
    replays = Replays(SETTINGS)
    for purpose, next_seq, expected in (
        (Purpose.CATCH_UP, None, (Purpose.SYNC, 0, -1)),
        (Purpose.CATCH_UP, 10, (Purpose.CATCH_UP, 7, 9)),
        (Purpose.CATCH_UP, 2, (Purpose.CATCH_UP, 0, 1)),
        (Purpose.VERIFY, 10, (Purpose.VERIFY, 7, 9)),
        (Purpose.REPAIR, 10, (Purpose.REPAIR, 0, 9)),
    ):
        session = replays.begin(purpose, next_seq, 0.0, 0)
        assert (session.purpose, session.start, session.expect) == expected
    assert replays.answered(session.attempt - 1) is None
    assert not replays.overdue(1.9)
    replays.extend(session, 1.9)
    assert not replays.overdue(3.8)
    assert replays.overdue(3.9)


def test_waiting_batches_are_drained_in_order_up_to_a_hole_or_another_process():
    outbox = Outbox()
    stream = Stream(SETTINGS, outbox, Standing("p", None, outbox, 0.0).counters)
    stream.apply(0, b"0")
    for seq in (4, 2, 1):
        stream.buffer.add(seq, b"%d" % seq)
    stream.buffer.add(0, b"0")
    assert stream.drain() is None
    assert [(one.first_seq, one.payloads) for one in outbox.take()] == [(0, (b"0", b"1", b"2"))]
    assert stream.resumes_at() == 4
    stream.buffer.clear()
    assert stream.resumes_at() is None
    stream.highest = 6
    assert stream.resumes_at() == 7
    stream.buffer.add(1, b"another")
    assert stream.drain() == 1
