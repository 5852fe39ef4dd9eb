"""The pytest plugin: fixtures for the common parts, a marker for backends, and a list of what was skipped and why.

It is loaded wherever the kit is installed, so it imports the rest of the kit only when a fixture is used. Nothing here
needs pytest-asyncio: fixtures whose set-up is asynchronous give a function to await.
"""

import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from kvsync_testkit.browser import Browser
    from kvsync_testkit.clock import VirtualClock
    from kvsync_testkit.cluster import Kube
    from kvsync_testkit.events import EventsPipelineFixture
    from kvsync_testkit.processes import Index, MockEngine, Router

NewPipeline: TypeAlias = "Callable[..., Awaitable[EventsPipelineFixture]]"
NewEngine: TypeAlias = "Callable[..., MockEngine]"
NewIndex: TypeAlias = "Callable[..., Index]"
NewRouter: TypeAlias = "Callable[..., Router]"
_SHOWN = 5
"""Tests that the list names for each reason."""


@pytest.fixture
def virtual_clock() -> "VirtualClock":
    """A clock that reads 0 seconds and moves only when the test lets it."""
    from kvsync_testkit.clock import VirtualClock

    return VirtualClock()


@pytest.fixture
def free_ports() -> Callable[[int], list[int]]:
    """A function that gives so many different free TCP ports on loopback."""
    from kvsync_testkit import ports

    return ports.free_ports


@pytest.fixture
def free_port(free_ports: Callable[[int], list[int]]) -> int:
    """One free TCP port on loopback."""
    return free_ports(1)[0]


@pytest.fixture
def events_pipeline(virtual_clock: "VirtualClock") -> Iterator[NewPipeline]:
    """A function to await, with the keyword arguments of `EventsPipelineBuilder`, for each pipeline the test needs.

    Pipelines run on the test's `virtual_clock`, unless given another, and are closed when the test ends.
    """
    from kvsync_testkit.events import EventsPipelineBuilder

    opened: list[EventsPipelineFixture] = []

    async def new_pipeline(**settings: Any) -> "EventsPipelineFixture":  # noqa: ANN401 - the builder's own arguments
        pipeline = await EventsPipelineBuilder(**{"clock": virtual_clock, **settings}).build_async()
        opened.append(pipeline)
        return pipeline

    yield new_pipeline
    for pipeline in opened:
        pipeline.close()


@pytest.fixture
def stopped_at_the_end() -> Iterator[contextlib.ExitStack]:
    """A stack of what the test started; it is stopped in reverse order when the test ends."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def mock_engine(stopped_at_the_end: contextlib.ExitStack, tmp_path: Path) -> NewEngine:
    """A function that starts a mock engine in a process of its own and waits until it serves.

    Its arguments are those of `MockEngine`: flags, or the same as keywords, such as `block_size=16`.
    """
    from kvsync_testkit.processes import MockEngine, stopping

    def start(*flags: object, **settings: Any) -> "MockEngine":  # noqa: ANN401 - flags of another program
        engine = MockEngine(*flags, **{"log": _log_file(tmp_path, "engine"), **settings})
        stopped_at_the_end.enter_context(stopping(engine))
        return engine.ready("/health")

    return start


@pytest.fixture
def index(stopped_at_the_end: contextlib.ExitStack, tmp_path: Path) -> NewIndex:
    """A function that starts an index of the engines it is given, and waits until it trusts all of them.

    Engines are mock engines or entries of a publishers file; keyword arguments become flags.
    """
    from kvsync_testkit.processes import Index, stopping

    def start(*engines: "MockEngine | Mapping[str, object]", **settings: Any) -> "Index":  # noqa: ANN401
        made = Index(*engines, **{"folder": tmp_path, "log": _log_file(tmp_path, "index"), **settings})
        stopped_at_the_end.enter_context(stopping(made))
        return made.live()

    return start


@pytest.fixture
def router(stopped_at_the_end: contextlib.ExitStack, tmp_path: Path) -> NewRouter:
    """A function that starts a router before the engines of an index, and waits until it knows all of them."""
    from kvsync_testkit.processes import Router, stopping

    def start(of: "Index", **settings: Any) -> "Router":  # noqa: ANN401 - flags of another program
        made = Router(of, **{"log": _log_file(tmp_path, "router"), **settings})
        stopped_at_the_end.enter_context(stopping(made))
        return made.live()

    return start


def _log_file(folder: Path, name: str) -> Path:
    """A file for the log of another process of this kind."""
    return folder / f"{name}-{len(list(folder.glob(f'{name}-*.log')))}.log"


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A headless Chromium for the tests of a module, which are synchronous; without one the test is skipped."""
    from kvsync_testkit.browser import open_browser
    from kvsync_testkit.errors import BrowserUnavailableError

    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(open_browser())
        except BrowserUnavailableError as error:
            pytest.skip(str(error))
        yield running


@pytest.fixture(scope="session")
def kube(request: pytest.FixtureRequest) -> "Iterator[Kube]":
    """The cluster of KUBECONFIG, or the one that `make cluster-up` recorded; without a cluster the test is skipped."""
    from kvsync_testkit.cluster import Kube, find_kubeconfig

    try:
        connection = Kube(find_kubeconfig(request.config.rootpath))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    connection.call("GET", "/readyz")
    yield connection
    connection.close()


@pytest.fixture
def kube_namespace(kube: "Kube", request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the real cluster for this test; it is deleted afterwards."""
    from kvsync_testkit.cluster import TestNamespaces

    namespaces = TestNamespaces(kube, request.node.name)
    yield namespaces.create()
    namespaces.delete()


def pytest_configure(config: pytest.Config) -> None:
    """Declare the kit's marker."""
    config.addinivalue_line(
        "markers", "requires_backend(*names): skip with the reason unless this machine has these transfer backends"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests whose backend is missing before their fixtures are set up."""
    for marker in item.iter_markers("requires_backend"):
        from kvsync_testkit.agents import skip_without_backend

        skip_without_backend(*marker.args)


def pytest_terminal_summary(terminalreporter: Any) -> None:  # noqa: ANN401 - pytest does not publish the type
    """End the run with what was skipped, by reason, so that a green run cannot hide what it did not do."""
    reports = terminalreporter.stats.get("skipped", [])
    if not reports:
        return
    terminalreporter.section("skipped, and why")
    for line in list_skips((report.nodeid, report.longrepr) for report in reports):
        terminalreporter.line(line)


def list_skips(skips: Iterable[tuple[str, object]]) -> list[str]:
    """Lines for skipped tests, given as node id and what pytest recorded: `(file, line, reason)` or text."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for node, recorded in skips:
        reason = str(recorded[2]) if isinstance(recorded, tuple) else str(recorded)
        by_reason[reason.removeprefix("Skipped: ")].append(node)
    lines = []
    for reason, nodes in sorted(by_reason.items()):
        lines.append(f"{len(nodes)} x {reason}")
        lines += [f"    {node}" for node in nodes[:_SHOWN]]
        if len(nodes) > _SHOWN:
            lines.append(f"    and {len(nodes) - _SHOWN} more")
    return lines
