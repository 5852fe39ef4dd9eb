"""The judgements of a soak run: each finds a planted defect, and does not find one where there is none."""

import random
from collections import Counter

import pytest
from soak_faults import ACTIONS, PLANTED, Chooser
from soak_load import build_prompt, rejected
from soak_quiet import compare
from soak_slopes import judge, sen_slope, thin

from kvsync_testkit.checks import Row


def memory(leak_per_hour, *, seconds=1200, warm_up=300, seed=1):
    """Resident memory as it is measured: a cache that fills, noise, single peaks, and a leak."""
    chance = random.Random(seed)
    points = []
    for at in range(seconds):
        value = 80 + 40 * min(1.0, at / warm_up) + chance.gauss(0, 1.0) + leak_per_hour * at / 3600
        points.append((float(at), value + (30 if chance.random() < 0.01 else 0)))
    return points


def test_sens_slope_is_that_of_a_line_and_ignores_peaks():
    line = [(float(x), 3 + 2.0 * x) for x in range(50)]
    assert sen_slope(line) == pytest.approx((2.0, 2.0, 2.0))
    line[25] = (25.0, 1000.0)
    assert sen_slope(line)[0] == pytest.approx(2.0)


def test_sens_interval_is_that_of_the_literature():
    # P. K. Sen's procedure on 10 points: 45 slopes, Kendall's standard deviation sqrt(10 * 9 * 25 / 18) = 11.18.
    points = [(float(x), float(y)) for x, y in enumerate([9, 15, 19, 20, 45, 55, 78, 79, 92, 95])]
    slope, low, high = sen_slope(points)
    ordered = sorted((y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1 :])
    assert slope == ordered[22]
    assert (low, high) == (ordered[11], ordered[34])


def test_a_slope_needs_two_times():
    with pytest.raises(ValueError, match="two samples"):
        sen_slope([(1.0, 2.0), (1.0, 3.0)])


@pytest.mark.parametrize("seed", range(5))
def test_a_leak_is_found_and_a_cache_that_fills_is_none(seed):
    found = judge("x", "MiB", memory(90.0, seed=seed), allowance=8.0)
    assert found is not None
    assert found.failed
    assert found.low_per_hour < 90.0 < found.high_per_hour
    healthy = judge("x", "MiB", memory(0.0, seed=seed), allowance=8.0)
    assert healthy is not None
    assert not healthy.failed
    assert healthy.detectable_per_hour == pytest.approx(8.0 * 3600 / healthy.judged_s)


def test_a_process_that_lived_briefly_has_no_verdict():
    assert judge("x", "", [(float(at), 1.0) for at in range(89)], 8.0) is None
    assert judge("x", "", [(float(at), 1.0) for at in range(91)], 8.0) is not None
    assert judge("x", "", [], 8.0) is None


def test_thinning_keeps_the_order_and_the_ends():
    points = [(float(x), 0.0) for x in range(1000)]
    few = thin(points, 10)
    assert few == sorted(few)
    assert len(few) == 10
    assert few[0] == points[0]
    assert thin(points, 2000) == points


def test_a_missing_block_and_a_block_too_many_are_differences():
    one, two = Row(1, "GPU", 0), Row(2, "GPU", 0)
    assert not compare("p", {one: 1}, {one: 1}, incomplete=False)
    assert compare("p", {one: 1, two: 1}, {one: 1}, incomplete=False)
    assert compare("p", {one: 1}, {one: 2}, incomplete=False)
    assert not compare("p", {one: 1, two: 1}, {one: 1}, incomplete=True)
    assert compare("p", {one: 1}, {one: 1, two: 1}, incomplete=True)


@pytest.mark.parametrize(
    ("outcomes", "fine"),
    [
        ({"200": 990, "502": 5, "RemoteDisconnected": 5}, True),
        ({"200": 999, "500": 1}, False),
        ({"200": 90, "503": 10}, False),
        ({}, False),
    ],
)
def test_outcomes_that_faults_do_not_explain_are_rejected(outcomes, fine):
    assert (not list(rejected(Counter(outcomes)))) == fine


def test_the_seed_decides_and_no_fault_is_left_out():
    first, second = (Chooser(7, ["a", "b", "c"]) for _ in range(2))
    names = [first.choose() for _ in range(2 * len(ACTIONS))]
    assert names == [second.choose() for _ in range(2 * len(ACTIONS))]
    every = ACTIONS.keys() - PLANTED.keys()
    assert {choice.name for choice in names[: len(every)]} == every
    assert {Chooser(7, ["a"], ["drop"]).choose().name for _ in range(3)} == {"drop"}


def test_prompts_share_prefixes():
    chance = random.Random(1)
    prompts = [build_prompt(chance) for _ in range(200)]
    assert len({tuple(prompt[:64]) for prompt in prompts}) <= 40
    assert len({tuple(prompt) for prompt in prompts}) > 100
