"""What fails a run and what does not."""

import bench_gate
import pytest
from bench_figures import Figure, Measured
from bench_sides import Samples
from bench_verdict import judge

SAME = bench_gate.compare("same", [1.0] * 10, [1.0] * 10, seed=1)
SLOWER = bench_gate.compare("slower", [1.0] * 10, [1.2] * 10, seed=1)


def test_a_fifth_more_fails_and_is_named():
    verdict = judge("compare", [SAME, SLOWER], Samples(), [], [])
    assert not verdict["passed"]
    assert verdict["reasons"] == ["slower costs 1.20 of the base (1.20 … 1.20, limit 1.10)"]


def test_the_same_passes():
    for mode in ("compare", "A/A"):
        assert judge(mode, [SAME], Samples(), [], [])["passed"]


def test_a_canary_must_be_seen_in_every_job():
    assert judge("canary", [SLOWER], Samples(), [], [])["passed"]
    verdict = judge("canary", [SLOWER, SAME], Samples(), [], [])
    assert verdict["reasons"] == ["canary missed in same"]
    assert "detected in 1 of 2 jobs" in verdict["text"]


def test_what_the_base_does_not_have_is_told_and_fails_nothing():
    verdict = judge("compare", [SAME], Samples(missing={"new": "No module named x"}), [], [])
    assert verdict["passed"]
    assert "1 not in the base" in verdict["text"]


def test_a_missed_target_fails_nothing():
    assert judge("compare", [SAME], Samples(), [Measured("g", "G", [Figure("f", 9, "s", "cpu", 1.0)])], [])["passed"]


@pytest.mark.parametrize(
    ("samples", "measured", "problems", "reason"),
    [
        (Samples(broken={"job": "boom"}), [], [], "job could not be run: boom"),
        (Samples(), [Measured("zmq", "ZMQ", problem="2 batches were lost")], [], "ZMQ: 2 batches were lost"),
        (Samples(), [], ["the canary was missed"], "the canary was missed"),
    ],
)
def test_what_could_not_be_measured_fails(samples, measured, problems, reason):
    verdict = judge("compare", [SAME], samples, measured, problems)
    assert not verdict["passed"]
    assert verdict["reasons"] == [reason]


def test_nothing_compared_is_said():
    assert "no job compared with a base" in judge("compare", [], Samples(), [], [])["text"]
