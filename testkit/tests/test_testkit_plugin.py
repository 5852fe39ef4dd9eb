"""The pytest plugin: fixtures work without further set-up, and a run ends with what it skipped."""

import socket

import pytest

from kvsync_testkit.cluster import FakeKube
from kvsync_testkit.managers import populate_manager_with_blocks
from kvsync_testkit.plugin import list_skips
from kvsync_testkit.processes import as_flags

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


def test_a_prompt_goes_to_the_engine_that_holds_its_beginning(mock_engine, index, router):
    engines = [mock_engine(block_size=16), mock_engine("--block-size", 16)]
    follower = index(*engines)
    front = router(follower, match_timeout=20)
    prompt = list(range(64))
    holder, _ = front.complete(prompt)
    follower.settled()
    assert follower.match([*prompt, *range(900, 932)]) == {holder: 4}
    assert follower.rows(holder) == engines[int(holder[-1])].rows()
    assert front.complete([*prompt, *range(900, 932)])[0] == holder


def test_processes_end_with_their_test(pytester, run):
    pytester.makepyfile(
        """
        from pathlib import Path

        def test_start(mock_engine):
            Path("pid").write_text(str(mock_engine().process.pid))

        def test_it_is_gone():
            assert not Path("/proc", Path("pid").read_text()).exists()
        """
    )
    run().assert_outcomes(passed=2)


NAMESPACE_TEST = """
    from pathlib import Path

    def test_one(kube, kube_namespace):
        Path("name").write_text(kube_namespace)
        assert kube.get("Namespace", kube_namespace)

    def test_it_is_deleted(kube):
        assert kube.find("Namespace", Path("name").read_text()) is None
"""


def test_each_test_has_a_namespace_of_its_own(pytester, run, monkeypatch):
    pytester.makepyfile(NAMESPACE_TEST)
    with FakeKube() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(pytester.path)))
        run().assert_outcomes(passed=2)


def test_without_a_cluster_its_tests_are_skipped_with_the_reason(pytester, run, monkeypatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    pytester.makepyfile(NAMESPACE_TEST)
    result = run()
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*skipped, and why*", "2 x no cluster: set KUBECONFIG or run `make cluster-up`"])


def test_settings_become_flags():
    settings = {"block_size": 16, "verbose": True, "quiet": False, "name": None, "rank": [0, 1]}
    assert as_flags(settings) == ["--block-size", 16, "--verbose", "--rank", 0, "--rank", 1]


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


def test_this_run_would_end_with_the_list_as_well(pytestconfig):
    assert pytestconfig.pluginmanager.hasplugin("kvsync_testkit")


def test_a_run_without_skips_has_no_list(pytester, run):
    pytester.makepyfile("def test_nothing(): ...")
    assert "skipped, and why" not in run().stdout.str()


def test_reasons_are_grouped_whatever_form_they_have():
    assert list_skips([("a", ("f", 1, "Skipped: x")), ("b", "x")]) == ["2 x x", "    a", "    b"]
