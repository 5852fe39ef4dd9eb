"""The pytest plugin: fixtures for the common parts, a marker for backends, and a list of what was skipped and why.

It is loaded wherever the kit is installed, so it imports the rest of the kit only when a fixture is used. Nothing here
needs pytest-asyncio: fixtures whose set-up is asynchronous give a function to await.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

if TYPE_CHECKING:
    from kvsync_testkit.clock import VirtualClock
    from kvsync_testkit.events import EventsPipelineFixture

NewPipeline: TypeAlias = "Callable[..., Awaitable[EventsPipelineFixture]]"
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
