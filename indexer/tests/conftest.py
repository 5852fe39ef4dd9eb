"""Fixtures: cores, of which each that is installed is tested, and discovery that watches a fake API server."""

import pytest
from discovery_helpers import FakeApiServer, Sink
from index_core_helpers import KINDS, new_core

from kvsync_indexer.discovery import KubernetesDiscovery


@pytest.fixture(params=KINDS)
def kind(request):
    """The kind of core."""
    return request.param


@pytest.fixture
def core(kind):
    """A core with the publishers `a` and `b` of model `m`, and `x` of another model."""
    return new_core(kind, "a", "b", "x=other")


@pytest.fixture
def server():
    """An API server without pods."""
    made = FakeApiServer()
    yield made
    made.close()


@pytest.fixture
def follow(server):
    """A function that starts discovery at the API server, and returns its sink and itself."""
    running = []

    def start(**how):
        sink = Sink()
        found = KubernetesDiscovery(sink, selector="kvsync.dev/kv-events=true", api=server.api(), **how)
        found.start()
        running.append(found)
        return sink, found

    yield start
    for found in running:
        found.stop()
        assert not any(watcher.alive for watcher in found.watchers)
