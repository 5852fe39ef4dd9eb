"""The history that the index keeps for its page: bounded, and right about rates, percentiles and transitions."""

import pytest

from kvsync_indexer.api import PredictionReport
from kvsync_indexer.audit import Auditor
from kvsync_indexer.core import make_core
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.latency import LatencyHistogram
from kvsync_indexer.service.history import POINTS, TRANSITIONS, History, Transitions
from kvsync_indexer.sync import Log


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ingest(clock):
    made = Ingest(make_core("python"), monotonic=clock, wall=clock)
    yield made
    made.stop()


@pytest.fixture
def history(ingest, clock):
    return History(ingest, Auditor(ingest), LatencyHistogram(), Transitions(clock), clock, clock)


def change(name, **fields):
    return Log(
        "info", "publisher_state", {"publisher": name, "before": "live", "after": "gap", "reason": "r", **fields}
    )


def test_a_point_has_the_rates_and_percentiles_of_its_interval_only(ingest, history, clock):
    meter = ingest.shared.meter
    for _ in range(99):
        meter.arrival.observe(0.0004)
    meter.bytes_in = 1000
    clock.now += 5
    history.sample()
    meter.arrival.observe(4.0)
    clock.now += 5
    history.sample()
    first, second = history.answer().points
    assert (first.received_bytes_per_s, first.arrival_p50_s, first.visible_p99_s) == (200.0, 0.0004, None)
    assert (second.received_bytes_per_s, second.arrival_p50_s) == (0.0, 5.0)


def test_a_point_has_the_predictions_of_its_interval_even_if_a_publisher_left(ingest, clock):
    auditor = Auditor(ingest)
    history = History(ingest, auditor, LatencyHistogram(), Transitions(clock), clock, clock)
    auditor.predictions.record(PredictionReport("a", predicted_tokens=10, cached_tokens=6))
    history.sample()
    auditor.predictions.keep(set())
    history.sample()
    first, second = history.answer().points
    assert (first.predicted_tokens, first.cached_tokens, first.over_tokens, first.under_tokens) == (10, 6, 4, 0)
    assert (second.predicted_tokens, second.over_tokens) == (0, 0)


def test_points_are_bounded_and_asked_for_from_a_time_on(history, clock):
    for _ in range(POINTS + 10):
        clock.now += 5
        history.sample()
    points = history.answer().points
    assert len(points) == POINTS
    assert [point.at for point in history.answer(points[-3].at).points] == [points[-2].at, points[-1].at]


def test_transitions_are_bounded_and_count_what_they_dropped(clock):
    transitions = Transitions(clock)
    for at in range(TRANSITIONS + 7):
        clock.now += 1
        transitions.take(change(f"p{at}", reason="x" * 10_000))
    newest, dropped = transitions.since(0.0)
    assert (len(newest), dropped) == (TRANSITIONS, 7)
    assert max(len(each.reason) for each in newest) <= 300
    assert [each.publisher for each in transitions.since(clock.now - 1)[0]] == [f"p{TRANSITIONS + 6}"]


def test_other_log_lines_are_no_transitions(clock):
    transitions = Transitions(clock)
    transitions.take(Log("info", "replay_requested", {"publisher": "p"}))
    assert transitions.since(0.0) == ([], 0)
