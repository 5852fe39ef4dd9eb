"""Keeps the runs of tests apart from those of the user and of other tests."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_state_folder(tmp_path_factory):
    """Give this session a state folder of its own, also in the commands that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
