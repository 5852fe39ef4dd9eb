"""The whole operator with kopf and both clients against a small API server: which objects it creates and changes."""

import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import msgspec
import pytest
from aiohttp import web
from operator_running import condition, engine, index, is_ready, running, until

from kvsync_indexer.api import Readiness
from kvsync_operator import names
from kvsync_operator.cache import Key
from kvsync_operator.reconcile import Reference
from kvsync_testkit.cluster import FakeKube

KINDS = ("serviceaccounts", "configmaps", "services", "networkpolicies", "poddisruptionbudgets", "deployments")


def is_idle(operator):
    """Whether the watches have delivered every write of the operator, and no worker has a pass to make."""
    stats = operator.controller.stats()
    return not operator.watchdog.silent(math.inf) and stats.woken == stats.running == 0


def writes(api):
    return {key: count for key, count in api.requests.items() if not key.startswith("GET")}


@pytest.fixture
def api():
    with FakeKube() as server:
        yield server


async def test_an_engine_gets_its_objects_and_its_deletion_leaves_nothing(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch) as operator:
        api.put(engine(replicas=3))
        await until("ready", lambda: is_ready(api))
        for kind in KINDS:
            (obj,) = api.all(kind)
            assert (
                obj["metadata"]["ownerReferences"][0]["uid"]
                == api.get("mockengines", "lab", "llama")["metadata"]["uid"]
            )
        live = api.get("mockengines", "lab", "llama")
        assert "finalizers" not in live["metadata"]
        assert "annotations" not in live["metadata"]
        assert live["status"]["readyReplicas"] == 3
        assert live["status"]["observedGeneration"] == 1
        await until("announced", lambda: api.all("events"))
        assert [event["reason"] for event in api.all("events")] == ["Ready"]
        api.store.delete(("mockengines", "lab", "llama"))
        await until("gone", lambda: not any(api.all(kind) for kind in KINDS))
        key = Key("MockEngine", "lab", "llama")
        await until("every deletion was delivered", lambda: not operator.cache.children(key) and is_idle(operator))
        assert operator.controller.stats().workers == 0, "no worker is left that could create the objects again"
        assert not any(api.all(kind) for kind in KINDS)


async def test_a_change_of_the_spec_reaches_the_pods(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch):
        api.put(engine(template={"nodeSelector": {"disk": "fast"}}))
        await until("ready", lambda: is_ready(api))
        before = api.get("deployments", "lab", "llama-engine")["spec"]["template"]
        assert before["spec"]["nodeSelector"] == {"disk": "fast"}
        api.put(engine(cache={"blockSize": 32}))

        def rolled():
            return api.get("deployments", "lab", "llama-engine")["spec"]["template"] != before and is_ready(api)

        await until("rolled", rolled)
        after = api.get("deployments", "lab", "llama-engine")["spec"]["template"]
        assert "nodeSelector" not in after["spec"]
        hashes = [t["metadata"]["annotations"]["kvsync.dev/config-hash"] for t in (before, after)]
        assert hashes[0] != hashes[1]
        assert '"block-size": 32' in api.get("configmaps", "lab", "llama-engine")["data"]["config.yaml"]
        assert not [event for event in api.all("events") if event["reason"] in ("Repaired", "Recreated")]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_deleted_by_hand_comes_back(api, tmp_path, monkeypatch, kind):
    async with running(api, tmp_path, monkeypatch):
        api.put(engine())
        await until("ready", lambda: is_ready(api))
        old = api.store.delete((kind, "lab", "llama-engine"))
        live = await until("back", lambda: api.get(kind, "lab", "llama-engine"))
        assert live["metadata"]["uid"] != old["metadata"]["uid"]
        await until("announced", lambda: any(event["reason"] == "Recreated" for event in api.all("events")))


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (("deployments", "lab", "llama-engine"), {"spec": {"replicas": 9}}),
        (("configmaps", "lab", "llama-engine"), {"data": {"config.yaml": "model: other\n"}}),
        (("services", "lab", "llama-engine"), {"spec": {"selector": {"kvsync.dev/engine": "other"}}}),
        (("networkpolicies", "lab", "llama-engine"), {"spec": {"ingress": []}}),
        (("deployments", "lab", "llama-engine"), {"metadata": {"labels": {"app.kubernetes.io/managed-by": "me"}}}),
    ],
)
async def test_what_is_changed_by_hand_is_put_back(api, tmp_path, monkeypatch, path, change):
    async with running(api, tmp_path, monkeypatch):
        api.put(engine())
        await until("ready", lambda: is_ready(api))
        right = api.store.objects[path]
        api.store.edit(path, change)

        def same():
            live = api.store.objects[path]
            return {**live, "metadata": live["metadata"]["labels"], "status": 0} == {
                **right,
                "metadata": right["metadata"]["labels"],
                "status": 0,
            }

        await until("put back", same)
        reason = "Recreated" if "metadata" in change else "Repaired"  # without the label the watch no longer selects it
        await until("announced", lambda: any(event["reason"] == reason for event in api.all("events")))


async def test_status_follows_the_pods_and_turns_once(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch):
        api.put(engine(replicas=2))
        await until("ready", lambda: is_ready(api))
        api.store.finish_rollout(("deployments", "lab", "llama-engine"), ready=1)
        await until("not ready", lambda: not is_ready(api))
        live = api.get("mockengines", "lab", "llama")
        assert condition(live, "Ready")["message"] == "1 of 2 pods are ready"
        assert live["status"]["readyReplicas"] == 1
        api.store.finish_rollout(("deployments", "lab", "llama-engine"))
        await until("ready again", lambda: is_ready(api))
        await until("events", lambda: len(api.all("events")) == 3)
        assert sorted(event["reason"] for event in api.all("events")) == ["NotReady", "Ready", "Ready"]


async def test_an_invalid_spec_becomes_a_condition_and_what_runs_is_left(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch) as operator:
        api.put(engine())
        await until("ready", lambda: is_ready(api))
        api.put(engine(events={"wireVersion": "0.99.0"}))  # passes the CRD, not the operator

        def degraded():
            found = condition(api.get("mockengines", "lab", "llama"), "Degraded")
            return found if found and found["status"] == "True" else None

        found = await until("degraded", degraded)
        assert found["reason"] == "InvalidSpec"
        assert found["message"].startswith("spec.events.wireVersion: ")
        assert api.get("deployments", "lab", "llama-engine") is not None
        assert api.get("mockengines", "lab", "llama")["status"]["observedGeneration"] == 2
        assert operator.health.failures() == []
        api.put(engine(events={"wireVersion": "0.20.0"}))
        await until("ready again", lambda: is_ready(api) and not degraded())
        await until("announced", lambda: "Recovered" in [event["reason"] for event in api.all("events")])


async def test_an_object_of_someone_else_is_never_taken_over(api, tmp_path, monkeypatch):
    mine = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "llama-engine", "namespace": "lab"},
        "data": {"precious": "yes"},
    }
    async with running(api, tmp_path, monkeypatch):
        api.put(mine)
        api.put(engine())

        def degraded():
            found = condition(api.get("mockengines", "lab", "llama"), "Degraded")
            return found if found and found["reason"] == "NameTaken" else None

        found = await until("degraded", degraded)
        assert "ConfigMap lab/llama-engine exists and does not belong to this MockEngine" in found["message"]
        assert api.get("configmaps", "lab", "llama-engine")["data"] == {"precious": "yes"}
        api.store.delete(("configmaps", "lab", "llama-engine"))
        await until("ready", lambda: is_ready(api))


@pytest.mark.parametrize(
    ("status", "reason"), [(403, "Forbidden"), (422, "Refused"), (500, "ApiUnavailable")], ids=["403", "422", "500"]
)
async def test_a_failed_write_is_told_and_tried_again(api, tmp_path, monkeypatch, status, reason):
    async with running(api, tmp_path, monkeypatch):
        api.fail("PATCH", "/services/llama-engine$", status)
        api.put(engine())

        def told():
            found = condition(api.get("mockengines", "lab", "llama"), "Degraded")
            return found if found and found["status"] == "True" else None

        found = await until("told", told)
        assert found["reason"] == reason
        assert "Service lab/llama-engine" in found["message"]
        assert api.get("deployments", "lab", "llama-engine") is not None  # the other objects were applied
        await until("ready", lambda: is_ready(api))


async def test_a_restart_in_the_middle_converges(api, tmp_path, monkeypatch):
    for killed_at in ("/serviceaccounts/", "/configmaps/", "/deployments/", "/mockengines/"):
        name = f"e{killed_at.strip('/')[:6]}"
        api.faults.clear()
        api.fail("PATCH", killed_at, 500, times=1000)
        async with running(api, tmp_path, monkeypatch):
            api.put(engine(name))
            await until(
                "tried", lambda at=killed_at: any(fault.times < 1000 for fault in api.faults if fault.path == at)
            )
        api.faults.clear()
        async with running(api, tmp_path, monkeypatch):
            await until(f"{name} ready", lambda n=name: is_ready(api, name=n))
    for kind in KINDS:
        assert len(api.all(kind)) == 4, kind


async def test_a_settled_operator_writes_nothing(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch) as operator:
        for number in range(5):
            api.put(engine(f"e{number}"))
        await until("ready", lambda: all(is_ready(api, name=f"e{n}") for n in range(5)))
        await until("idle", lambda: is_idle(operator))
        before = writes(api)
        for key in operator.cache.keys():  # noqa: SIM118
            operator.controller.wake(key)
        assert not is_idle(operator)
        await until("idle again", lambda: is_idle(operator))
        assert writes(api) == before


async def test_an_index_watches_other_namespaces_and_leaves_nothing_there(api, tmp_path, monkeypatch):
    name = names.watch_role_name("main", "lab", "far")
    async with running(api, tmp_path, monkeypatch, audit_s=1, cross_namespace=("lab=far",)):
        api.put(index(namespaces=["lab", "far"], router={"policy": "kv"}))
        await until("role", lambda: api.get("roles", "far", name))
        role = api.get("roles", "far", name)
        assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        assert "ownerReferences" not in role["metadata"]
        binding = await until("binding", lambda: api.get("rolebindings", "far", name))
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "main-index", "namespace": "lab"}]
        api.put(index(namespaces=["lab"]))
        await until("pruned", lambda: not api.get("roles", "far", name))
        await until("router gone", lambda: not api.get("services", "lab", "main-router"))
        api.put(index(namespaces=["far"]))
        await until("role again", lambda: api.get("rolebindings", "far", name))
        api.store.delete(("prefixindexes", "lab", "main"))
        await until("swept", lambda: not api.all("roles") and not api.all("rolebindings"))


async def test_an_index_without_a_grant_gets_nothing_in_another_namespace(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch, cross_namespace=("far=lab", "lab=near")):
        api.put(index(namespaces=["lab", "far"]))
        shown = await until("refused", lambda: condition(api.get("prefixindexes", "lab", "main"), "Degraded"))
        assert shown["reason"] == "InvalidSpec"
        assert "'lab=far' to operator.crossNamespace" in shown["message"]
        assert not api.all("roles")
        assert not api.all("rolebindings")


async def test_a_role_of_another_index_is_never_taken_over(api, tmp_path, monkeypatch):
    """Even if the operator has it in its cache, and the other index has the label of neither."""
    name = names.watch_role_name("main", "lab", "far")
    labels = {names.LABEL_MANAGED_BY: names.FIELD_MANAGER, names.LABEL_INDEX: "x", names.LABEL_INDEX_NAMESPACE: "y"}
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "rules": []}
    async with running(api, tmp_path, monkeypatch, cross_namespace=("lab=far",)) as operator:
        api.put({**role, "metadata": {"name": name, "namespace": "far", "labels": labels}})
        reference = Reference(role["apiVersion"], "Role", "far", name)
        await until("the operator has seen it", lambda: operator.cache.object(reference))
        api.put(index(namespaces=["lab", "far"]))
        await until(
            "the name is taken",
            lambda: "NameTaken" in str(condition(api.get("prefixindexes", "lab", "main"), "Degraded")),
        )
        assert api.get("roles", "far", name)["metadata"]["labels"] == labels


@contextlib.asynccontextmanager
async def index_pod(api: FakeKube, address: str, states: list[str]) -> AsyncIterator[list[str]]:
    """Run a ready index pod of `main` at a loopback address. Its publishers are in `states`, which may be changed."""

    async def readiness(_: web.Request) -> web.Response:
        answer = Readiness(True, "native", len(states), states.count("live"), None, {}, states=dict(Counter(states)))
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/readyz", readiness)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, address, names.INDEX_PORT).start()
    labels = {"app.kubernetes.io/name": "prefix-index", "kvsync.dev/index": "main"}
    metadata = {"name": f"main-index-{address}", "namespace": "lab", "labels": labels}
    api.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata})
    status = {"podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    api.store.edit(("pods", "lab", metadata["name"]), {"status": status})
    try:
        yield states
    finally:
        await runner.cleanup()


def synced(api):
    found = condition(api.get("prefixindexes", "lab", "main"), "Synced")
    return (found["status"], found["reason"]) if found else None


async def test_the_index_reports_whether_it_is_in_sync(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch, sync_poll_s=1):
        api.put(index())
        await until("ready", lambda: is_ready(api, "prefixindexes", "main"))
        assert synced(api) == ("Unknown", "IndexNotAsked")  # no index pod answers
        async with index_pod(api, "127.94.0.1", ["live", "replaying"]) as states:
            await until("resyncing", lambda: synced(api) == ("False", "Resyncing"))
            states[1] = "live"
            await until("in sync", lambda: synced(api) == ("True", "AllLive"))
            status = api.get("prefixindexes", "lab", "main")["status"]
            assert status["publishers"] == {"total": 2, "live": 2, "stale": 0, "resyncing": 0, "quarantined": 0}
            states[0] = "stale"
            await until("stale", lambda: synced(api) == ("False", "Stale"))
        await until("away", lambda: synced(api) == ("Unknown", "IndexUnreachable"))
        assert is_ready(api, "prefixindexes", "main")


async def test_the_index_pod_that_is_behind_decides(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch, sync_poll_s=1):
        api.put(index(replicas=2))
        await until("ready", lambda: is_ready(api, "prefixindexes", "main"))
        async with (
            index_pod(api, "127.94.0.2", ["live", "live"]),
            index_pod(api, "127.94.0.3", ["live", "gap"]) as behind,
        ):
            await until("behind", lambda: synced(api) == ("False", "Resyncing"))
            behind[1] = "live"
            await until("in sync", lambda: synced(api) == ("True", "AllLive"))


async def test_a_silent_watch_makes_liveness_fail(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch, audit_s=1) as operator:
        api.put(engine())
        await until("ready", lambda: is_ready(api))
        await until("idle", lambda: is_idle(operator))
        operator.watchdog.max_lag_s = 0.1
        assert operator.health.failures() == []
        api.silent.add("mockengines")
        api.put(engine(replicas=2))
        failures = await until("noticed", operator.health.failures)
        assert "the watch on MockEngine has been silent" in failures[0]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{operator.http_port}/healthz") as response,
        ):
            assert response.status == 503


async def test_an_api_outage_does_not_make_liveness_fail(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch, audit_s=1) as operator:
        api.put(engine())
        await until("ready", lambda: is_ready(api))
        await until("idle", lambda: is_idle(operator))
        operator.watchdog.max_lag_s = 0.1
        api.fail("PATCH", ".", 503, times=10**6)
        api.fail("GET", "mockengines", 503, times=10**6)
        api.put(engine(replicas=2))
        await until("passes and audits fail", lambda: all(fault.times <= 10**6 - 2 for fault in api.faults))
        assert operator.health.failures() == []
        api.faults.clear()
        await until("scaled", lambda: api.get("deployments", "lab", "llama-engine")["spec"]["replicas"] == 2)


async def test_metrics_and_readiness(api, tmp_path, monkeypatch):
    async with running(api, tmp_path, monkeypatch) as operator:
        api.put(engine())
        await until("ready", lambda: is_ready(api))
        async with aiohttp.ClientSession() as session:
            base = f"http://127.0.0.1:{operator.http_port}"
            async with session.get(f"{base}/readyz") as response:
                assert response.status == 200
            async with session.get(f"{base}/metrics") as response:
                text = await response.text()
        assert 'kvsync_operator_resources{kind="MockEngine",ready="True"} 1.0' in text
        assert 'kvsync_operator_objects_applied_total{kind="Deployment"}' in text
        assert "llama" not in text
