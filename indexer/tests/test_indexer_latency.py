"""Lateness: a run counted in one step is what its batches counted one by one are."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsync_indexer.latency import BUCKETS_S, LONGEST_S, LatencyHistogram, batch_times

TIMES = st.floats(min_value=990.0, max_value=1001.0)


@given(begun=st.lists(TIMES, min_size=1, max_size=30), now=TIMES)
def test_a_run_in_one_step_is_its_batches_one_by_one(begun, now):
    run, single = LatencyHistogram(), LatencyHistogram()
    run.observe_since(begun, now)
    for each in begun:
        single.observe(now - each)
    assert run.counts == single.counts
    assert run.total_s == pytest.approx(single.total_s, abs=1e-9)
    assert run.cumulative()[-1] == ("+Inf", len(begun))


def test_buckets_tell_fractions_of_a_millisecond():
    assert list(BUCKETS_S) == sorted(set(BUCKETS_S))
    assert sum(bound <= 0.001 for bound in BUCKETS_S) > 10
    histogram = LatencyHistogram()
    histogram.observe_since([1.0, 1.0, 1.0], 1.00035)
    assert histogram.quantile(0.99) == 0.0004


def test_a_batch_that_does_not_begin_with_its_time_is_left_out():
    good = b"\x92\xcb" + struct.pack(">d", 5.5) + b"\x90"
    assert batch_times([good, b"", b"\x92\xcb", b"\x92\x05" + bytes(12), b"\x81" + good[1:], good]) == [5.5, 5.5]


POISON = [float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 1e200]


@pytest.mark.parametrize("made", POISON)
def test_times_that_no_clock_shows_are_left_out(made):
    payload = b"\x92\xcb" + struct.pack(">d", made) + b"\x90"
    assert batch_times([payload]) == []


@given(begun=st.lists(st.sampled_from([*POISON[3:], 0.0, 999.0]), min_size=1, max_size=5))
def test_no_time_makes_a_histogram_useless(begun):
    histogram = LatencyHistogram()
    histogram.observe_since(begun, 1000.0)
    assert 0.0 <= histogram.total_s <= len(begun) * LONGEST_S
    histogram.observe(float("nan"))
    assert sum(histogram.counts) == len(begun) + 1
