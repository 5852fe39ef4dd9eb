"""Verdicts: no fault passes whose injection is not confirmed, and no run passes that proved nothing."""

import pytest

from kvsync_testkit.chaos.faults import FAULTS, choose_faults
from kvsync_testkit.chaos.report import as_document, failed
from kvsync_testkit.chaos.verdicts import Injection, Observation, Report, Verdict, decide, judge_injection
from kvsync_testkit.checks import Violation

HEALTHY = Observation(False, False)


@pytest.mark.parametrize(
    ("before", "during", "expected"),
    [
        (HEALTHY, Observation(True, False), Injection.CONFIRMED),
        (HEALTHY, Observation(False, False), Injection.MISMATCH),
        (HEALTHY, Observation(True, True), Injection.MISMATCH),
        (HEALTHY, Observation(None, False), Injection.INCONCLUSIVE),
        (HEALTHY, Observation(True, None), Injection.INCONCLUSIVE),
        (Observation(True, False), Observation(True, False), Injection.INCONCLUSIVE),
        (Observation(None, False), Observation(True, False), Injection.INCONCLUSIVE),
        (Observation(False, True), Observation(True, False), Injection.INCONCLUSIVE),
    ],
)
def test_an_injection_is_confirmed_only_by_a_change_on_the_affected_pair_alone(before, during, expected):
    injection, why = judge_injection(before, during)
    assert injection is expected
    assert bool(why) == (expected is not Injection.CONFIRMED)


def decided(injection=Injection.CONFIRMED, violations=(), unchecked=None, reasons=()):
    report = Report("partition", "local", "", injection=injection)
    decide(report, ("I1", "I2"), violations, unchecked or {}, reasons)
    return report


def test_a_confirmed_fault_with_every_invariant_kept_passes():
    report = decided()
    assert report.verdict is Verdict.PASSED
    assert (report.invariants["I1"], report.invariants["I3"]) == ("kept", "not promised")


@pytest.mark.parametrize("injection", [Injection.MISMATCH, Injection.INCONCLUSIVE])
def test_an_injection_that_is_not_confirmed_never_passes(injection):
    report = decided(injection)
    assert report.verdict is Verdict.FAILED
    assert f"the injection is {injection}" in report.reason


def test_a_broken_promise_fails_and_is_named():
    report = decided(violations=[Violation("I1", "engine-0", "only in the engine: 1")])
    assert report.verdict is Verdict.FAILED
    assert report.reason == "I1 engine-0: only in the engine: 1"
    assert report.invariants["I1"] == "violated"


def test_an_invariant_about_which_nothing_was_observed_fails():
    report = decided(unchecked={"I2": "no engine holds a block"})
    assert report.verdict is Verdict.FAILED
    assert report.invariants["I2"] == "not checked"


def test_a_slow_recovery_fails():
    assert decided(reasons=["recovery took 9 s"]).verdict is Verdict.FAILED


def test_a_run_in_which_everything_was_skipped_is_not_passed():
    skipped = Report("loss-50", "local", "", Verdict.SKIPPED, reason="the kernel has no sch_netem")
    assert failed([skipped])
    assert failed([])
    assert not failed([skipped, decided()])
    assert failed([decided(), decided(Injection.MISMATCH)])


def test_the_document_has_what_tools_read():
    document = as_document([decided()], "local", 3)
    fault = document["faults"]["partition"]
    assert document["verdict"] == "passed"
    for key in ("backend", "verdict", "injection", "detected_s", "recovered_s", "invariants", "reason"):
        assert key in fault
    assert (fault["verdict"], fault["injection"]) == ("passed", "Confirmed")


def test_faults_are_chosen_by_name_and_by_scope():
    assert [one.name for one in choose_faults("hang, partition")] == ["partition", "hang"]
    assert {one.scope for one in choose_faults("network")} == {"network"}
    assert choose_faults("all") == list(FAULTS)
    assert {one.scope for one in choose_faults("smoke")} == {"network", "pods", "events"}
    with pytest.raises(ValueError, match="unknown faults partitoin"):
        choose_faults("partitoin")


def test_names_are_unique_and_every_fault_recovers_within_a_bound_of_the_specification():
    assert len({one.name for one in FAULTS}) == len(FAULTS)
    assert {one.recovery_s for one in FAULTS} == {5.0, 30.0}
