"""Skipping a test whose backend is missing, with the reason, so that the end of a run can list it."""

from kvsync_testkit.agents.probing import backend_unavailable


def skip_without_backend(*names: str) -> None:
    """Skip the running pytest test unless this machine has every one of these backends.

    The marker `@pytest.mark.requires_backend("UCX")` of the kit's plugin does the same before fixtures are set up.
    """
    import pytest

    for name in names:
        reason = backend_unavailable(name)
        if reason is not None:
            pytest.skip(f"backend {name}: {reason}")
