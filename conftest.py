"""For every member's tests: no test's logging set-up outlives it."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _fresh_logging() -> Iterator[None]:
    """A command that runs in process configures logging on the captured stream, which closes with its test."""
    yield
    structlog.reset_defaults()
