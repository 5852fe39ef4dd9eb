"""Campaigns: many schedules over some processes, as `make test-faults` plays them."""

import pytest

from kvsync_testkit.faults import campaign, expand_schedule, run_schedule
from kvsync_testkit.faults.__main__ import main
from kvsync_testkit.faults.campaign import play_campaign
from kvsync_testkit.faults.mutants import MUTANTS


def test_a_campaign_counts_what_it_played():
    told = []
    tally = play_campaign(range(27), "python", jobs=1, at_most=3, progress=lambda now: told.append(now.schedules))
    assert told == [25, 27]
    assert not tally.failures
    schedules = [expand_schedule(seed) for seed in range(27)]
    assert tally.faults.total() == sum(len(schedule.faults) for schedule in schedules)
    assert tally.batches == sum(run_schedule(schedule).batches for schedule in schedules)


def test_processes_find_what_one_finds():
    alone = play_campaign(range(27), "python", jobs=1, at_most=3)
    assert play_campaign(range(27), "python", jobs=2, at_most=3) == alone


@pytest.fixture
def broken_core(monkeypatch):
    mutant = next(one for one in MUTANTS if one.name == "shares one map")
    monkeypatch.setitem(campaign.CORES, "python", mutant.subject.core)


def test_a_campaign_ends_with_its_failures_and_how_to_play_them_again(broken_core, capsys):
    assert main(["--seeds", "0-99", "--jobs", "1", "--most", "1"]) == 1
    out = capsys.readouterr().out
    assert "FAILED with seeds " in out
    assert out.count("again: python -m kvsync_testkit.faults --core python --seeds ") == 1


def test_a_clean_campaign_says_passed(capsys):
    assert main(["--seeds", "7", "--jobs", "1"]) == 0
    out, err = capsys.readouterr()
    assert "python core: 1 of 1 schedules (seeds 7 to 7)" in out
    assert "passed: 0 failures" in out
    assert "1 of 1 schedules, 0 failures" in err


@pytest.mark.parametrize("seeds", ["x", "5-", "9-3", ""])
def test_a_bad_range_of_seeds_is_refused(seeds, capsys):
    assert main(["--seeds", seeds]) == 2
    assert "--seeds must be N or A-B" in capsys.readouterr().err
