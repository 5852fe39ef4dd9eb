"""The InferencePool of an endpoint picker, with the whole operator against the kit's API server."""

import contextlib

import pytest
from operator_running import condition, index, is_ready, running, until

from kvsync_testkit.cluster import FakeKube

API_VERSION = "inference.networking.k8s.io/v1"


def pool(name="main", service="main-epp", port=9002):
    return {
        "apiVersion": API_VERSION,
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": "lab"},
        "spec": {
            "selector": {"matchLabels": {"app": "engine"}},
            "targetPorts": [{"number": 8000}],
            "endpointPickerRef": {"name": service, "port": {"number": port}},
        },
    }


def state(api):
    found = condition(api.get("prefixindexes", "lab", "main"), "EndpointPicker")
    return (found["status"], found["reason"]) if found else None


@pytest.fixture
def api():
    with FakeKube() as server:
        yield server


@contextlib.asynccontextmanager
async def picking(api, tmp_path, monkeypatch, **picker):
    async with running(api, tmp_path, monkeypatch, sync_poll_s=1) as operator:
        api.put(index(endpointPicker=picker))
        await until("ready", lambda: is_ready(api, "prefixindexes", "main"))
        yield operator


async def test_the_operator_makes_the_pool_and_repairs_it(api, tmp_path, monkeypatch):
    async with picking(api, tmp_path, monkeypatch, createPool="Enabled", targetPorts=[8000, 8001]) as operator:
        await until("the pool is served", lambda: state(api) == ("True", "PoolServed"))
        made = api.get("inferencepools", "lab", "main")
        assert made["metadata"]["ownerReferences"][0]["kind"] == "PrefixIndex"
        assert made["spec"]["selector"] == {"matchLabels": {"kvsync.dev/kv-events": "true"}}
        assert made["spec"]["targetPorts"] == [{"number": 8000}, {"number": 8001}]
        assert made["spec"]["endpointPickerRef"]["name"] == "main-epp"
        service = api.get("services", "lab", "main-epp")
        assert [port["port"] for port in service["spec"]["ports"]] == [9002, 9003, 9090]
        status = api.get("prefixindexes", "lab", "main")["status"]
        assert (status["pool"], status["pickerEndpoint"]) == ("main", "main-epp.lab.svc:9002")
        api.store.edit(("inferencepools", "lab", "main"), {"spec": {"targetPorts": [{"number": 1}]}})
        await until(
            "the pool is repaired",
            lambda: len(api.get("inferencepools", "lab", "main")["spec"]["targetPorts"]) == 2,
        )
        assert not any("InferencePool" in failure for failure in operator.health.failures())


async def test_a_pool_that_is_no_longer_wanted_is_deleted(api, tmp_path, monkeypatch):
    async with picking(api, tmp_path, monkeypatch, createPool="Enabled", pool="first"):
        await until("the pool is made", lambda: api.get("inferencepools", "lab", "first"))
        await until("the pool is served", lambda: state(api) == ("True", "PoolServed"))
        api.put(index(endpointPicker={"createPool": "Enabled", "pool": "second"}))
        await until("the other pool is made", lambda: api.get("inferencepools", "lab", "second"))
        await until("the first pool is gone", lambda: api.get("inferencepools", "lab", "first") is None)
        api.put(index(endpointPicker={"enabled": False, "createPool": "Enabled", "pool": "second"}))
        await until("no pool is left", lambda: api.all("inferencepools") == [])
        await until("the condition is gone", lambda: state(api) is None)
        await until("the Service is gone", lambda: api.get("services", "lab", "main-epp") is None)
        assert "pool" not in api.get("prefixindexes", "lab", "main")["status"]


async def test_a_pool_of_somebody_else_is_only_read(api, tmp_path, monkeypatch):
    async with picking(api, tmp_path, monkeypatch):
        await until("the pool is missed", lambda: state(api) == ("False", "PoolNotFound"))
        api.put(pool(service="another"))
        await until("the reference is read", lambda: state(api) == ("False", "OtherPicker"))
        api.put(pool())
        await until("the pool is served", lambda: state(api) == ("True", "PoolServed"))
        args = api.get("deployments", "lab", "main-index")["spec"]["template"]["spec"]["containers"][0]["args"]
        assert args[args.index("--pool") + 1] == "main"
        api.put(index())
        await until("the condition is gone", lambda: state(api) is None)
        assert api.get("inferencepools", "lab", "main") is not None
        assert {request for request in api.requests if request.endswith("inferencepools")} == {"GET inferencepools"}


async def test_the_kind_is_not_installed(api, tmp_path, monkeypatch):
    api.uninstalled.add("inferencepools")
    async with picking(api, tmp_path, monkeypatch, createPool="Enabled") as operator:
        await until("the condition says so", lambda: state(api) == ("False", "KindNotInstalled"))
        degraded = condition(api.get("prefixindexes", "lab", "main"), "Degraded")
        assert degraded["status"] == "False"
        assert operator.health.failures() == []
        api.uninstalled.clear()
        await until("the pool is made once it is", lambda: state(api) == ("True", "PoolServed"))


async def test_a_refusal_is_said_and_heals(api, tmp_path, monkeypatch):
    api.fail("PATCH", "/inferencepools/", 403, times=1_000_000)
    async with picking(api, tmp_path, monkeypatch, createPool="Enabled"):
        await until("the refusal is reported", lambda: state(api) == ("False", "PoolRefused"))
        assert is_ready(api, "prefixindexes", "main")
        api.faults.clear()
        await until("the pool is served", lambda: state(api) == ("True", "PoolServed"))
