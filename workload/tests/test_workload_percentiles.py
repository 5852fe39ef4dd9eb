"""Percentiles against an independent nearest rank, weighted and not."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvsync_workload.percentiles import REPORTED, Distribution, percentile, summarize


def nearest_rank(values, percent):
    """The definition, spelled out: the smallest value with at least that percentage of values not above it."""
    ordered = sorted(values)
    return next(value for value in ordered if sum(other <= value for other in ordered) * 100 >= percent * len(ordered))


VALUES = st.lists(st.integers(0, 40).map(float), min_size=1, max_size=60)


@given(VALUES)
def test_a_distribution_equals_its_definition(values):
    found = summarize(values)
    for name, percent in REPORTED:
        assert getattr(found, name) == nearest_rank(values, percent)
    assert (found.count, found.max) == (len(values), max(values))
    assert found.mean == pytest.approx(math.fsum(values) / len(values))
    assert summarize({value: values.count(value) for value in values}) == found


@given(VALUES, st.integers(1, 100))
def test_one_percentile_equals_its_definition(values, percent):
    assert percentile(values, percent) == nearest_rank(values, percent)
    assert percentile({value: values.count(value) for value in values}, percent) == nearest_rank(values, percent)


def test_ranks_have_no_rounding_error():
    """As a float, 0.07 * 100 is greater than 7: the 8th value would be taken."""
    assert percentile(range(1, 101), 7) == 7


def test_no_values_have_no_percentiles():
    assert summarize([]) == summarize({}) == summarize({1.0: 0}) == Distribution()
    assert percentile([], 99) is None
    assert set(summarize([]).rounded(1000, 3).values()) == {None}


def test_values_are_reported_in_another_unit():
    found = summarize({1000: 99, 5000: 1}).rounded(1e-3, 4)
    assert found == {"mean": 1.04, "p50": 1.0, "p90": 1.0, "p95": 1.0, "p99": 1.0, "max": 5.0}
