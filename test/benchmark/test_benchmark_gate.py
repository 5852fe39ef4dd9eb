"""The gate fails a planted slowdown and passes the same revision."""

import random

import bench_gate
import pytest


def noisy(median: float, rounds: int, seed: int, noise: float = 0.02) -> list[float]:
    rng = random.Random(seed)
    return [median * (1 + rng.gauss(0, noise)) for _ in range(rounds)]


def test_a_planted_slowdown_of_a_fifth_fails() -> None:
    failed = [
        bench_gate.compare("canary", noisy(1.0, 10, s), noisy(1.2, 10, s + 1000), seed=s).failed for s in range(50)
    ]
    assert sum(failed) >= 45


def test_the_same_revision_passes() -> None:
    pairs = [(noisy(1.0, 10, seed), noisy(1.0, 10, seed + 1000)) for seed in range(200)]
    failed = [bench_gate.compare("a/a", base, head, seed=1).failed for base, head in pairs]
    assert not any(failed)


def test_a_faster_head_passes() -> None:
    comparison = bench_gate.compare("faster", noisy(1.0, 10, 1), noisy(0.5, 10, 2), seed=3)
    assert not comparison.failed
    assert comparison.high < 1.0


def test_noise_widens_the_limit_and_never_narrows_it() -> None:
    assert bench_gate.compute_limit(0.0) == pytest.approx(1.10)
    assert bench_gate.compute_limit(0.02) == pytest.approx(1.10)
    assert bench_gate.compute_limit(0.10) == pytest.approx(1.30)


def test_a_drifting_machine_falls_on_both_sides_alike() -> None:
    order = bench_gate.interleaving(10)
    speed = [1.0 + 0.05 * i for i in range(len(order))]
    base = [s for side, s in zip(order, speed, strict=True) if side == "base"]
    head = [s for side, s in zip(order, speed, strict=True) if side == "head"]
    assert len(base) == len(head) == 10
    assert bench_gate.compare("drift", base, head, seed=1).ratio == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("rounds", [0, 8, 11])
def test_too_few_or_odd_rounds_are_refused(rounds: int) -> None:
    with pytest.raises(ValueError, match=f"rounds: {rounds}"):
        bench_gate.interleaving(rounds)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        bench_gate.compare("short", [1.0] * 9, [1.0] * 10, seed=1)
