"""Publishers whose batches do not arrive live: only checks of idle publishers find them."""

import pytest
from sync_helpers import SETTINGS, Bench

from kvsync_indexer.sync import State


@pytest.fixture
def bench():
    """In sync with batches 0 to 9, and checked once."""
    bench = Bench(epoch="1").live()
    check(bench)
    assert bench.machine.state is State.LIVE
    return bench


def check(bench, *found):
    """Wait for the next check, which finds these batches besides the last one that is known."""
    for _ in range(100):
        bench.tick(0.25)
        bench.do(bench.machine.alive(bench.now, bench.now))
        if bench.machine.replays.session is not None:
            break
    bench.item(bench.machine.next_seq - 1)
    for seq in found:
        bench.item(seq)
    bench.end()


def counted(bench):
    return bench.machine.counters.gaps, bench.machine.counters.missed


def test_batches_that_only_a_check_found_count_as_missed(bench):
    check(bench, 10, 11)
    bench.tick(SETTINGS.verify_doubt_s)
    assert bench.machine.state is State.LIVE
    assert counted(bench) == (1, 2)
    assert "2 batches did not arrive live" in bench.machine.reason


def test_batches_that_were_on_their_way_do_not(bench):
    check(bench, 10, 11)
    bench.frame(10)
    bench.frame(11)
    bench.tick(SETTINGS.verify_doubt_s)
    assert counted(bench) == (0, 0)
    assert bench.machine.reason == "in sync"


def test_a_batch_behind_them_shows_that_they_will_not_come(bench):
    check(bench, 10, 11)
    bench.frame(12)
    assert counted(bench) == (1, 2)
    assert bench.machine.next_seq == 13


def test_after_a_find_the_next_check_comes_soon(bench):
    check(bench, 10)
    replays = bench.machine.counters.replays
    bench.tick(SETTINGS.verify_doubt_s)
    assert bench.machine.counters.replays == replays + 1


def test_checks_that_find_nothing_more_become_rare_again(bench):
    check(bench, 10)
    begun = bench.now
    for _ in range(5):
        check(bench)
    assert bench.now - begun > SETTINGS.verify_idle_s


def test_a_publisher_that_only_checks_hear_is_not_trusted(bench):
    check(bench, 10)
    check(bench, 11)
    assert bench.machine.state is State.GAP
    assert "live batches do not arrive" in bench.machine.reason
    assert bench.applied() == [] or not bench.machine.trusted


def test_it_is_followed_all_the_same(bench):
    check(bench, 10)
    check(bench, 11)
    check(bench, 12)
    assert bench.machine.next_seq == 13
    assert bench.machine.state is State.GAP


def test_a_live_batch_makes_it_trusted_again(bench):
    check(bench, 10)
    check(bench, 11)
    bench.frame(12)
    assert bench.machine.state is State.GAP
    bench.item(11)
    bench.end()
    assert (bench.machine.state, bench.machine.reason) == (State.LIVE, "in sync")
    assert bench.machine.next_seq == 13


def test_a_quiet_one_is_trusted_until_the_next_find(bench):
    check(bench, 10)
    check(bench, 11)
    for _ in range(200):
        check(bench)
        if bench.machine.state is State.LIVE:
            break
    assert "live batches have not arrived" in bench.machine.reason
    check(bench, 12)
    assert bench.machine.state is State.GAP


def test_a_new_process_begins_without_doubt(bench):
    check(bench, 10)
    check(bench, 11)
    bench.do(bench.machine.epoch_changed("2", bench.now))
    assert not bench.machine.verification.doubtful
