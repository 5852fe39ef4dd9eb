"""Seeded fault schedules.

KVSYNC_FAULT_SCHEDULES says how many, KVSYNC_FAULT_FIRST_SEED where to begin, KVSYNC_FAULT_CORE (python, native) on
which core.
"""

import os

import pytest

from kvsync_testkit.faults import build_native_core, expand_schedule, find_failures, run_schedule, shrink
from kvsync_testkit.faults.mutants import MUTANTS
from kvsync_testkit.faults.simulation import build_core

COUNT = int(os.environ.get("KVSYNC_FAULT_SCHEDULES", "40"))
FIRST = int(os.environ.get("KVSYNC_FAULT_FIRST_SEED", "0"))
CORE = build_native_core if os.environ.get("KVSYNC_FAULT_CORE") == "native" else build_core
PARTS = 8


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("part", range(PARTS))
def test_schedules_keep_every_promise(part):
    failures = find_failures(range(FIRST + part, FIRST + COUNT, PARTS), core=CORE)
    assert not failures, "\n\n".join(map(str, failures))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_planted_bug_is_found(mutant):
    fitting = [one for one in map(expand_schedule, range(2000)) if mutant.when(one)]
    for schedule in fitting[:60]:
        found = {one.invariant for one in run_schedule(schedule, mutant.machine, mutant.core).violations}
        if mutant.invariants <= found:
            return
    pytest.fail(f"{mutant.name}: {sorted(mutant.invariants)} found nothing")


def test_every_invariant_has_a_planted_bug():
    covered = set().union(*(mutant.invariants for mutant in MUTANTS))
    assert covered == {f"I{number}" for number in range(1, 13)}


def test_a_seed_is_a_test_case():
    one, two = (run_schedule(expand_schedule(5)) for _ in range(2))
    assert str(one) == str(two)
    assert one.batches == two.batches > 0
    assert str(expand_schedule(5)) != str(expand_schedule(6))


def test_a_failure_is_made_small_and_can_be_read():
    mutant = next(one for one in MUTANTS if one.name == "skips the gap check")
    seed = next(s for s in range(200) if run_schedule(expand_schedule(s), mutant.machine).failed)
    before = expand_schedule(seed)
    outcome = shrink(before, mutant.machine)
    assert outcome.failed
    assert len(outcome.schedule.faults) <= len(before.faults)
    text = str(outcome)
    assert f"seed {seed}:" in text
    assert "violations:" in text
    assert "I1 faulted" in text or "I2 faulted" in text
