"""Fixtures of the index core's tests, which run once for each core that is installed."""

import pytest
from index_core_helpers import KINDS, new_core


@pytest.fixture(params=KINDS)
def kind(request):
    """The kind of core."""
    return request.param


@pytest.fixture
def core(kind):
    """A core with the publishers `a` and `b` of model `m`, and `x` of another model."""
    return new_core(kind, "a", "b", "x=other")
