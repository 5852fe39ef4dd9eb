"""What tests of the index core ask for by name: each core that is installed, empty and with publishers."""

import pytest
from index_core_helpers import KINDS, new_core


@pytest.fixture(params=KINDS)
def kind(request):
    """Which core."""
    return request.param


@pytest.fixture
def core(kind):
    """With publishers `a` and `b` of model `m`, and `x` of another."""
    return new_core(kind, "a", "b", "x=other")
