"""The pytest plugin: fixtures work without further set-up, and a run ends with what it skipped."""

import socket

import pytest

from kvsync_testkit.managers import populate_manager_with_blocks
from kvsync_testkit.plugin import list_skips

pytest_plugins = ("pytester",)


def test_the_clock_starts_at_zero(virtual_clock):
    assert virtual_clock.now == 0.0


def test_ports_can_be_bound(free_port, free_ports):
    taken = [socket.create_server(("127.0.0.1", port)) for port in (free_port, *free_ports(3))]
    for one in taken:
        one.close()


@pytest.mark.parametrize("bus", ["stub", "zmq"])
async def test_pipelines_share_the_tests_clock(events_pipeline, virtual_clock, bus):
    pipeline = await events_pipeline(batching_window=5, bus=bus)
    assert pipeline.clock is virtual_clock
    populate_manager_with_blocks(pipeline.create_manager("G1", 4, 4), 1)
    virtual_clock.advance(0.005)
    assert (await pipeline.receive_batch()).seq == 0


@pytest.fixture
def run(pytester, monkeypatch):
    """pytest in a process of its own, with no other plugin than the kit's, because all of them take seconds to load."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return lambda: pytester.runpytest_subprocess("-p", "kvsync_testkit.plugin", "--strict-markers")


def test_a_run_ends_with_what_was_skipped_and_why(pytester, run):
    pytester.makepyfile(
        """
        import ctypes.util
        import pytest

        ctypes.util.find_library = lambda name: None

        @pytest.fixture
        def never():
            raise AssertionError("set up although the test is skipped")

        @pytest.mark.requires_backend("POSIX", "UCX")
        def test_ucx(never): ...

        @pytest.mark.requires_backend("POSIX")
        def test_posix(): ...

        @pytest.mark.parametrize("n", range(7))
        def test_other(n):
            pytest.skip("no such hardware")
        """
    )
    result = run()
    result.assert_outcomes(passed=1, skipped=8)
    result.stdout.fnmatch_lines(
        [
            "*skipped, and why*",
            "1 x backend UCX: the UCX library libucp is not installed",
            "    *::test_ucx",
            "7 x no such hardware",
            "    *::test_other?0?",
            "    and 2 more",
        ]
    )


def test_a_run_without_skips_has_no_list(pytester, run):
    pytester.makepyfile("def test_nothing(): ...")
    assert "skipped, and why" not in run().stdout.str()


def test_reasons_are_grouped_whatever_form_they_have():
    assert list_skips([("a", ("f", 1, "Skipped: x")), ("b", "x")]) == ["2 x x", "    a", "    b"]
