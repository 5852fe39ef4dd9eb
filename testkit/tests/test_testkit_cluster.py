"""The fake API server, asked by the official client and by the kit's own connection; and namespaces for tests."""

import contextlib
import json
import threading

import pytest
from kubernetes import client, watch

from kvsync_testkit.cluster import (
    FakeKube,
    Kube,
    KubeError,
    TestNamespaces,
    condition,
    dump_namespace,
    sweep_namespaces,
    wait_while,
)
from kvsync_testkit.waiting import wait_until


@pytest.fixture
def api():
    with FakeKube(page_size=2) as server:
        yield server


@pytest.fixture
def kube(api, tmp_path):
    connection = Kube(api.kubeconfig(tmp_path))
    yield connection
    connection.close()


@pytest.fixture
def core(api):
    settings = client.Configuration(host=api.url)
    settings.retries = False
    with client.ApiClient(settings) as connection:
        yield client.CoreV1Api(connection)


def pod(name, namespace="lab", **labels):
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": "c"}]},
        "status": {},
    }


def config(name, namespace="lab", **data):
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def read_events(core, got, **how):
    """Read a watch in a thread until the server ends it."""

    def read():
        stream = watch.Watch().stream(core.list_namespaced_pod, "lab", timeout_seconds=60, **how)
        try:
            for event in stream:
                got.append((event["type"], event["raw_object"]["metadata"].get("name")))
        except client.ApiException as error:
            got.append(("ERROR", error.status))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def test_lists_come_in_pages(api, core):
    for number in range(5):
        api.replace(pod(f"p{number}"))
    api.replace(pod("elsewhere", "far"))
    names, token = [], None
    while token != "":
        page = core.list_namespaced_pod("lab", limit=500, _continue=token)
        assert len(page.items) <= 2
        names += [item.metadata.name for item in page.items]
        token = page.metadata._continue or ""
    assert names == [f"p{number}" for number in range(5)]
    assert [asked.namespace for asked in api.asked] == ["lab"] * 3


def test_watches_show_what_their_selector_selects(api, core):
    got = []
    thread = read_events(core, got, label_selector="app=a")
    wait_until("the watch runs", lambda: api.watches)
    api.replace(pod("one", app="a"))
    api.replace(pod("two", app="b"))
    api.replace(pod("one", app="b"))  # no longer selected
    wait_until("both events", lambda: len(got) == 2)
    api.end_watches()
    thread.join(10)
    assert got == [("ADDED", "one"), ("DELETED", "one")]


def test_a_watch_resumes_and_is_told_of_deletions(api, core):
    api.replace(pod("one"))
    version = core.list_namespaced_pod("lab").metadata.resource_version
    api.store.delete(("pods", "lab", "one"))
    got = []
    thread = read_events(core, got, resource_version=version)
    wait_until("the deletion", lambda: got == [("DELETED", "one")])
    api.end_watches()
    thread.join(10)


@contextlib.contextmanager
def raw_watch(api, core, **query):
    """A watch as the lines that were read, complete when the block ends."""
    lines = []

    def read():
        lines.extend(core.list_namespaced_pod("lab", watch=True, _preload_content=False, **query).read().splitlines())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    wait_until("the watch runs", lambda: api.watches)
    yield lines
    api.end_watches()
    thread.join(10)


def test_an_expired_history_ends_watches_with_410(api, core):
    api.replace(pod("one"))
    version = core.list_namespaced_pod("lab").metadata.resource_version
    with raw_watch(api, core, resource_version=version) as running:
        api.expire()
    assert json.loads(running[0])["object"]["code"] == 410
    with raw_watch(api, core, resource_version=version) as resumed:
        pass
    assert json.loads(resumed[0])["object"]["code"] == 410
    with raw_watch(api, core, resource_version=api.store.version) as fresh:
        api.replace(pod("two"))
    assert [json.loads(line)["type"] for line in fresh] == ["ADDED"]


def test_bookmarks_and_raw_lines_reach_the_watches(api, core):
    with raw_watch(api, core) as lines:
        version = api.bookmark()
        api.tell_raw(b"not JSON")
    assert json.loads(lines[0])["type"] == "BOOKMARK"
    assert json.loads(lines[0])["object"]["metadata"]["resourceVersion"] == version
    assert lines[1] == b"not JSON"


def test_faults_strike_so_many_times(api, core):
    api.fail("GET", "/pods$", 503, times=2)
    for _ in range(2):
        with pytest.raises(client.ApiException) as caught:
            core.list_namespaced_pod("lab")
        assert caught.value.status == 503
    assert core.list_namespaced_pod("lab").items == []
    assert api.requests["GET pods"] == 1  # failed ones are not counted


def test_apply_removes_what_its_manager_no_longer_has(api, kube):
    kube.apply(config("one", a="1", b="2"))
    api.store.apply(("configmaps", "lab", "one"), config("one", c="3"), "another", status=False)
    assert kube.apply(config("one", a="1"))["data"] == {"a": "1", "c": "3"}
    assert kube.patch("ConfigMap", "one", "lab", {"data": {"a": "9"}})["data"]["a"] == "9"


def test_owners_take_what_they_own_with_them(api, kube):
    owner = api.put(config("owner"))
    owned = config("owned")
    owned["metadata"]["ownerReferences"] = [{"uid": owner["metadata"]["uid"]}]
    api.put(owned)
    kube.delete("ConfigMap", "owner", "lab")
    assert kube.find("ConfigMap", "owned", "lab") is None
    with pytest.raises(KubeError, match="404"):
        kube.get("ConfigMap", "owner", "lab")


def test_workloads_finish_their_rollouts(api, kube):
    metadata = {"name": "w", "namespace": "lab"}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": 2}}
    assert api.put(deployment)["status"]["readyReplicas"] == 2
    api.store.workloads_ready = False
    kube.patch("Deployment", "w", "lab", {"spec": {"replicas": 3}})
    assert kube.get("Deployment", "w", "lab")["status"]["replicas"] == 2
    assert condition(kube.get("Deployment", "w", "lab"), "Available")["status"] == "absent"


def test_namespaces_of_a_test_are_found_and_deleted(api, kube):
    api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "precious"}})
    mine, left = TestNamespaces(kube, "test_A_b[c/1]"), TestNamespaces(kube, "test_interrupted")
    first, second = mine.create(), mine.create("-far", labels={})
    abandoned = left.create()
    assert first.startswith("e2e-a-b-c-1-")
    assert second.endswith("-far")
    assert kube.get("Namespace", first)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    kube.apply(config("inside", first))
    mine.delete()
    assert kube.find("ConfigMap", "inside", first) is None
    assert kube.find("Namespace", abandoned) is not None
    sweep_namespaces(kube)
    assert [item["metadata"]["name"] for item in kube.objects("Namespace")] == ["precious"]


def test_a_namespace_is_written_down_as_far_as_it_can_be_read(api, kube, tmp_path):
    api.put(config("one", a="1"))
    api.fail("GET", "/roles$", 403)
    dump_namespace(kube, "lab", tmp_path / "dump")
    assert "name: one" in (tmp_path / "dump" / "configmaps.yaml").read_text()
    assert "403" in (tmp_path / "dump" / "roles.yaml").read_text()


def test_a_condition_that_ends_too_soon_is_a_failure():
    answers = iter([True, False])
    with pytest.raises(AssertionError, match="the light: no longer true"):
        wait_while("the light", lambda: next(answers), for_s=30.0)


def test_a_named_entry_that_is_no_longer_applied_is_removed(api):
    def applied(*kinds):
        body = pod("a")
        api.store.apply(("pods", "lab", "a"), {**body, "list": [{"type": kind} for kind in kinds]}, "me", status=False)
        return [entry["type"] for entry in api.get("pods", "lab", "a")["list"]]

    assert applied("x", "y") == ["x", "y"]
    api.store.edit(("pods", "lab", "a"), {"list": [{"type": "other"}]})
    assert applied("y") == ["y", "other"]
