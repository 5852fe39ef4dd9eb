"""When the index wants a report, and which engines can make one."""

from types import SimpleNamespace

import pytest

from kvsync_indexer.service.learning import EVERY_S, Learning, can_report


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def link(name="p", version="0.33.0", **machine):
    state = {"incomplete": True, "trusted": True, **machine}
    return SimpleNamespace(spec=SimpleNamespace(name=name), machine=SimpleNamespace(**state), engine_version=version)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def learning(clock):
    return Learning(on=True, monotonic=clock)


def test_an_engine_that_found_more_than_was_predicted_is_asked(learning):
    assert learning.wants_report(link(), 0, 32)


@pytest.mark.parametrize(
    ("link", "predicted", "cached"),
    [
        (link(), 32, 32),
        (link(), 48, 32),
        (link(incomplete=False), 0, 32),
        (link(trusted=False), 0, 32),
        (link(version="0.25.1"), 0, 32),
        (link(version=None), 0, 32),
    ],
)
def test_no_other_is(learning, link, predicted, cached):
    assert not learning.wants_report(link, predicted, cached)


def test_nothing_is_wanted_if_learning_is_off(clock):
    assert not Learning(on=False, monotonic=clock).wants_report(link(), 0, 32)


def test_reports_are_wanted_at_a_bounded_rate(learning, clock):
    assert [learning.wants_report(link(), 0, 32) for _ in range(5)] == [True, False, False, False, False]
    assert learning.wants_report(link("q"), 0, 32)
    clock.now += EVERY_S
    assert learning.wants_report(link(), 0, 32)
    assert learning.wanted == 3


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("0.26.0", True),
        ("0.26.0rc1", True),
        ("0.33.0+cpu", True),
        ("1.0", True),
        ("0.25.9", False),
        ("0.9.2", False),
        ("dev", False),
        ("9" * 5000, False),
        ("", False),
        (None, False),
    ],
)
def test_the_argument_exists_since_0_26(version, can):
    assert can_report(version) is can
