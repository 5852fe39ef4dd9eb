"""An InferencePool as the source of a picker's endpoints, over the kit's API server."""

import asyncio
import contextlib
import subprocess
import sys

import aiohttp
import grpc
import pytest
from kubernetes import client
from picker_helpers import PROMPT, Gateway, address, request_body, request_headers
from router_helpers import MODEL, FakeIndex, free_socket, running_engines

from kvsync_indexer.pools import PoolFollower
from kvsync_router.config import RouterConfig
from kvsync_router.errors import DirectoryUnavailableError
from kvsync_router.picker.server import PickerServer
from kvsync_router.routing import Routing
from kvsync_router.sources.pool import PoolDirectory
from kvsync_router.sources.scoring import InProcessScorer
from kvsync_testkit.cluster import FakeKube
from kvsync_testkit.ports import free_ports
from kvsync_testkit.processes import HttpPort
from kvsync_testkit.waiting import until

NEVER_S = 3600.0


def pool(*ports):
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": "lab", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "engine"}},
            "targetPorts": [{"number": port} for port in ports],
        },
    }


def pod(name, *, ready=True, leaving=False, ranks=1):
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": "engine"}}
    notes = {"model": MODEL, "data-parallel-size": str(ranks), "events-port": "5557", "replay-port": "none"}
    metadata["annotations"] = {f"kvsync.dev/{key}": value for key, value in notes.items()}
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "engine"}]},
        "status": {
            "podIP": "127.0.0.1",
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


@pytest.fixture
def api():
    with FakeKube() as server:
        yield server


def follower(api):
    settings = client.Configuration(host=api.url)
    settings.retries = False
    return PoolFollower("lab", "default", api=client.CoreV1Api(client.ApiClient(settings)))


@contextlib.asynccontextmanager
async def picking(api, matches=None):
    """A picker whose endpoints are those of the pool `lab`, which it reads only when it is told of changes."""
    config = RouterConfig.parse({"refresh_s": NEVER_S, "probe_s": NEVER_S, "health_s": NEVER_S})
    index = FakeIndex([], matches)
    routing = Routing(config, PoolDirectory(follower(api), index.api_key), InProcessScorer(index))
    bound = free_socket()
    port = bound.getsockname()[1]
    picker = PickerServer(routing, bound, None)
    serving = asyncio.create_task(picker.serve())
    try:
        await until("the picker started", lambda: picker.started or serving.done())
        options = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            yield Gateway(port, channel, picker, routing)
    finally:
        picker.stop(at_once=True)
        await serving


def names(gateway):
    return [endpoint.info.name for endpoint in gateway.routing.table.all()]


async def test_each_port_is_an_endpoint_that_matches_apply_to(api):
    async with running_engines("x", "y") as (x, y):
        api.put(pool(x.port, y.port))
        api.replace(pod("a", ranks=2))
        async with picking(api, {"a/1": 4}) as gateway:
            await until("both ranks are known", lambda: names(gateway) == ["a/0", "a/1"])
            assert await gateway.pick() == f"{address(y)},{address(x)}"
            assert gateway.picker.ready()


async def test_a_pod_that_leaves_is_not_picked_from_then_on(api):
    async with running_engines("x") as (x,):
        api.put(pool(x.port))
        api.replace(pod("a"))
        api.replace(pod("late", ready=False))
        async with picking(api) as gateway:
            await until("the ready pod is known", lambda: gateway.picker.ready())
            assert names(gateway) == ["a"]
            api.replace(pod("a", leaving=True))
            await until("the pod has left the rotation", lambda: names(gateway) == [])
            assert not gateway.picker.ready()
            api.replace(pod("late"))
            await until("the other pod has become ready", lambda: gateway.picker.ready())
            assert await gateway.pick() == address(x)


async def test_other_ports_and_no_pool(api):
    async with running_engines("x", "y") as (x, y):
        api.put(pool(x.port))
        api.replace(pod("a"))
        async with picking(api) as gateway:
            await until("the pod is known", lambda: gateway.picker.ready())
            api.put(pool(y.port))
            await until("the port has changed", lambda: gateway.routing.table.get("a").info.url == y.url)
            assert await gateway.pick() == address(y)
            api.store.delete(("inferencepools", "default", "lab"))
            await until("a deleted pool has no endpoints", lambda: names(gateway) == [])


async def test_an_api_server_that_is_away_removes_no_endpoint(api):
    async with running_engines("x") as (x,):
        api.put(pool(x.port))
        api.replace(pod("a"))
        async with picking(api) as gateway:
            await until("the pod is known", lambda: gateway.picker.ready() and len(api.watches) == 2)
            before = api.requests["GET inferencepools"]
            api.fail("GET", ".", 503, times=1_000_000)
            api.end_watches()
            await until("requests have failed", lambda: all(fault.times <= 999_998 for fault in api.faults))
            assert api.requests["GET inferencepools"] == before
            assert await gateway.pick() == address(x)


async def test_before_the_pool_was_read_nothing_is_known(api):
    api.fail("GET", ".", 403, times=1_000_000)
    source = follower(api)
    directory = PoolDirectory(source)
    with pytest.raises(DirectoryUnavailableError, match="InferencePool lab: there is no InferencePool lab"):
        await directory.endpoints()
    directory.start(lambda: None)
    try:
        await until("the refusal is reported", lambda: "403" in (source.problem() or ""))
        with pytest.raises(DirectoryUnavailableError, match="HTTP 403"):
            await directory.endpoints()
    finally:
        await asyncio.to_thread(directory.stop)


@contextlib.contextmanager
def process_of(module, flags, log):
    """A command as a process, which ends with exit code 0."""
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", module, *map(str, flags)], stderr=out)
    try:
        yield
    finally:
        process.terminate()
        assert process.wait(30) == 0


async def test_the_command_follows_the_pool_that_its_flags_name(api, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    async with running_engines("x") as (x,):
        api.put(pool(x.port))
        api.replace(pod("a"))
        port, health, metrics = free_ports(3)
        flags = ["--host", "127.0.0.1", "--pool-name", "lab", "--pool-namespace", "default", "--no-secure-serving"]
        flags += ["--grpc-port", port, "--grpc-health-port", health, "--metrics-port", metrics]
        with process_of("kvsync_router.picker.main", flags, tmp_path / "log"):
            await asyncio.to_thread(HttpPort(metrics).ready, "/readyz")
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                assert await Gateway(port, channel, None, None).pick() == address(x)


async def test_a_picker_in_the_process_of_the_index_follows_the_same_pods(api, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
    async with running_engines("x") as (x,):
        api.put(pool(x.port))
        api.replace(pod("a"))
        port, http = free_ports(2)
        flags = ["--host", "127.0.0.1", "--port", http, "--discover", "kubernetes", "--pool", "lab"]
        flags += ["--namespace", "default", "--epp-port", port, "--no-epp-secure-serving"]
        flags += ["--epp-pool-name", "lab", "--epp-pool-namespace", "default"]
        with process_of("kvsync_indexer.main", flags, tmp_path / "log"):
            index = HttpPort(http)
            await asyncio.to_thread(index.ready, "/healthz")

            async def publishers():
                async with aiohttp.ClientSession() as session, session.get(f"{index.url}/v1/publishers") as response:
                    return [row["name"] for row in (await response.json())["publishers"]]

            await until("the index follows the pod", publishers)
            assert await publishers() == ["a"]
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                gateway = Gateway(port, channel, None, None)
                await until("the picker knows the pod", lambda: picked(gateway))
                assert await gateway.pick() == address(x)


async def picked(gateway):
    """Whether the picker names an address, rather than to answer with 503."""
    answer, stream = await gateway.ask(request_headers(), request_body(PROMPT), answers=1)
    stream.cancel()
    return not answer[0].HasField("immediate_response")
