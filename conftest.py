"""Settings for the tests of every member: reproducible property tests, and logging that ends with its test.

`make test` has to give the same result every time, so the default Hypothesis profile derives each example from the
test itself and stores nothing. `make test-random` selects the `nightly` profile: fresh seeds, a database of the
examples that failed, and a printed `@reproduce_failure` decorator for each failure. The environment variable
`KVSYNC_HYPOTHESIS_PROFILE` or pytest's `--hypothesis-profile` selects a profile; the option wins.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase

FAILED_EXAMPLES = Path(__file__).parent / "out" / "hypothesis"
"""Where a run with fresh seeds keeps its failing examples; the nightly workflow uploads `out/`."""

_no_wall_clock = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
"""Without the limits that a busy machine can exceed: 200 ms per example, and the time to draw one."""

settings.register_profile("deterministic", _no_wall_clock, derandomize=True, database=None)
settings.register_profile(
    "nightly", _no_wall_clock, derandomize=False, database=DirectoryBasedExampleDatabase(FAILED_EXAMPLES)
)
settings.load_profile(os.environ.get("KVSYNC_HYPOTHESIS_PROFILE", "deterministic"))


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """Undo a test's logging configuration, whose output stream may be closed with the test."""
    yield
    structlog.reset_defaults()
