"""Seeded fault schedules, those that Hypothesis composes, and the planted bugs that both must find.

KVSYNC_FAULT_SCHEDULES says how many seeds are played, KVSYNC_FAULT_FIRST_SEED which is the first, and KVSYNC_FAULT_CORE
(python, native) on which core.
"""

import os
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvsync_testkit.faults import (
    REAL,
    Fault,
    build_core,
    build_native_core,
    expand_schedule,
    find_failures,
    run_schedule,
    shrink,
)
from kvsync_testkit.faults.mutants import CRASHING, MUTANTS
from kvsync_testkit.faults.plan import LASTING

COUNT = int(os.environ.get("KVSYNC_FAULT_SCHEDULES", "80"))
FIRST = int(os.environ.get("KVSYNC_FAULT_FIRST_SEED", "0"))
CORE = build_native_core if os.environ.get("KVSYNC_FAULT_CORE") == "native" else build_core
PARTS = 8


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(PARTS))
def test_schedules_keep_every_promise(part):
    failures = find_failures(range(FIRST + part, FIRST + COUNT, PARTS), REAL.on(CORE))
    assert not failures, "\n\n".join(map(str, failures))


def test_schedules_that_once_found_a_defect_keep_every_promise():
    """2846: a successor that goes on where its predecessor ended was taken for it.

    752, 8209: a check that brought batches and ended at a hole did not count them, so a deaf publisher was trusted.
    """
    failures = find_failures([2846, 752, 8209], REAL.on(CORE))
    assert not failures, "\n\n".join(map(str, failures))


def test_a_core_that_fails_now_and_then_costs_blocks_and_never_a_promise():
    failures = find_failures(range(60), REAL.on(CRASHING))
    assert not failures, "\n\n".join(map(str, failures))


lasting = st.builds(
    Fault,
    st.sampled_from(LASTING),
    at_s=st.floats(0.0, 2.0),
    for_s=st.floats(0.02, 2.0),
    rate=st.sampled_from([0.05, 0.3, 1.0]),
)
points = st.builds(Fault, st.sampled_from(["disconnect", "index_restart"]), at_s=st.floats(0.0, 2.5))
restarts = st.builds(
    Fault,
    st.just("restart"),
    at_s=st.floats(0.0, 2.5),
    for_s=st.sampled_from([0.0, 0.05, 0.5]),
    how=st.sampled_from(["in_place", "epoch_first", "epoch_late"]),
    same_hashes=st.booleans(),
    burst=st.sampled_from([0, 0, 1, 3, 30]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1 << 16),
    faults=st.lists(st.one_of(lasting, points, restarts), max_size=8),
    buffer_steps=st.sampled_from([4, 1000]),
    busy_s=st.sampled_from([0.0, 0.05]),
    monitor_lag_s=st.sampled_from([0.0, 0.03]),
    poisoned=st.sampled_from([0.0, 0.02]),
)
def test_composed_schedules_keep_every_promise(seed, faults, buffer_steps, busy_s, monitor_lag_s, poisoned):
    """With a replay endpoint, so that everything can be told apart; Hypothesis makes a failure small by itself."""
    base = expand_schedule(seed)
    schedule = replace(
        base,
        workload=replace(base.workload, poisoned_batches=poisoned),
        replay=True,
        buffer_steps=buffer_steps,
        faulty_s=3.0,
        nudges=max(1, base.nudges),
        busy_s=busy_s,
        monitor_lag_s=monitor_lag_s,
        heartbeats=True,
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
    )
    outcome = run_schedule(schedule, REAL.on(CORE))
    assert not outcome.failed, str(outcome)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_planted_bug_is_found(mutant):
    """Seeds decide everything, so this search finds the bug in every run or in none."""
    fitting = [one for one in map(expand_schedule, range(4000)) if mutant.when(one)]
    for schedule in fitting[:150]:
        found = {one.invariant for one in run_schedule(schedule, mutant.subject).violations}
        if mutant.invariants <= found:
            return
    pytest.fail(f"{mutant.name}: no schedule broke {sorted(mutant.invariants)}")


def test_every_invariant_has_a_planted_bug():
    covered = set().union(*(mutant.invariants for mutant in MUTANTS))
    assert covered == {"C1", *(f"I{number}" for number in range(1, 13))}


def test_a_seed_is_a_test_case():
    one, two = (run_schedule(expand_schedule(5)) for _ in range(2))
    assert str(one) == str(two)
    assert one.batches == two.batches > 0
    assert str(expand_schedule(5)) != str(expand_schedule(6))


def test_a_failure_is_made_small_and_can_be_read():
    mutant = next(one for one in MUTANTS if one.name == "skips the gap check")
    seed = next(s for s in range(200) if run_schedule(expand_schedule(s), mutant.subject).failed)
    before = expand_schedule(seed)
    outcome = shrink(before, mutant.subject)
    assert outcome.failed
    assert len(outcome.schedule.faults) <= len(before.faults)
    text = str(outcome)
    assert f"seed {seed}:" in text
    assert "violations:" in text
    assert "I1 faulted" in text or "I2 faulted" in text
