"""Kubernetes discovery: reading pods, and watching a fake API server over HTTP."""

import pytest
from discovery_helpers import Sink, pod
from service_helpers import DEADLINE_S

from kvsync_indexer.discovery import PodError, PodTable, pod_publishers
from kvsync_testkit.waiting import wait_until


def one(made, **how):
    (spec,) = pod_publishers(made, qualified=False, **how)
    return spec


# -- one pod ------------------------------------------------------------------------------------------------------


def test_annotations_say_everything():
    notes = {
        "model": "org/model",
        "http-port": "8001",
        "events-port": "6000",
        "replay-port": "6100",
        "data-parallel-size": "2",
        "topic": "kv",
        "debug": "true",
    }
    first, second = pod_publishers(pod("p", notes=notes, restarts=3), qualified=False)
    assert (first.name, first.pod, first.rank, first.model) == ("p/0", "p", 0, "org/model")
    assert (first.endpoint, first.replay_endpoint) == ("tcp://10.0.0.1:6000", "tcp://10.0.0.1:6100")
    assert (second.endpoint, second.replay_endpoint) == ("tcp://10.0.0.1:6001", "tcp://10.0.0.1:6101")
    assert (first.epoch, second.epoch) == ("uid-p/3/0", "uid-p/3/1")
    assert first.http_url == first.debug_url == "http://10.0.0.1:8001"
    assert (first.topic, first.ready, first.source) == ("kv", True, "kubernetes")


def test_the_contract_shared_with_aibrix():
    labels = {"model.aibrix.ai/name": "llama", "model.aibrix.ai/port": "8080"}
    spec = one(pod("p", labels=labels, notes={}))
    assert (spec.name, spec.model, spec.http_url, spec.debug_url) == ("p", "llama", "http://10.0.0.1:8080", None)
    assert (spec.endpoint, spec.replay_endpoint) == ("tcp://10.0.0.1:5557", "tcp://10.0.0.1:5558")


@pytest.mark.parametrize(
    ("args", "wanted"),
    [
        (
            ["--served-model-name", "served", "--port=9000", "--kv-events-config",
             '{"enable_kv_cache_events":true,"endpoint":"tcp://*:7000","replay_endpoint":"tcp://*:7100","topic":"t"}'],
            {"model": "served", "http_url": "http://10.0.0.1:9000", "endpoint": "tcp://10.0.0.1:7000",
             "replay_endpoint": "tcp://10.0.0.1:7100", "topic": "t", "name": "p"},
        ),
        (
            ["serve", "org/positional", "--kv_events_config.enable_kv_cache_events", "true",
             "--kv-events-config.endpoint=tcp://*:7000"],
            {"model": "org/positional", "endpoint": "tcp://10.0.0.1:7000", "replay_endpoint": None},
        ),
        (
            ["--model", "m2", "--data-parallel-rank", "3", "--kv-events-config",
             '{"enable_kv_cache_events":true,"replay_endpoint":"tcp://*:5600"}'],
            {"model": "m2", "name": "p/3", "rank": 3, "endpoint": "tcp://10.0.0.1:5560",
             "replay_endpoint": "tcp://10.0.0.1:5603"},
        ),
        (["--model", "m", "--mock-debug", "--max-num-seqs", "8"], {"debug_url": "http://10.0.0.1:8000"}),
    ],
)  # fmt: skip
def test_container_arguments(args, wanted):
    spec = one(pod("p", notes={}, args=args))
    assert {name: getattr(spec, name) for name in wanted} == wanted


def test_ranks_of_arguments_and_names_across_namespaces():
    args = ["--model", "m", "-dp", "3", "--kv-events-config.enable_kv_cache_events=true"]
    args += ["--kv-events-config.replay_endpoint", "tcp://*:5700"]
    specs = pod_publishers(pod("p", "ns", notes={}, args=args, ip="fd00::1"), qualified=True)
    assert [spec.name for spec in specs] == ["ns/p/0", "ns/p/1", "ns/p/2"]
    assert specs[2].endpoint == "tcp://[fd00::1]:5559"
    assert {spec.pod for spec in specs} == {"p"}


def test_not_ready_no_address_leaving():
    assert one(pod("p", ready=False)).ready is False
    assert pod_publishers(pod("p", ip=None), qualified=False) == []
    assert pod_publishers(pod("p", deleting=True), qualified=False) == []
    assert pod_publishers(pod("p", phase="Failed"), qualified=False) == []


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"notes": {"model": "m", "events-port": "http"}}, ["kvsync.dev/events-port", "'http'", "65535"]),
        ({"notes": {"model": "m", "data-parallel-size": "0"}}, ["data-parallel-size", "'0'"]),
        ({"notes": {"model": "m", "container": "x"}}, ["kvsync.dev/container", "'x'", "engine"]),
        ({"notes": {}}, ["no model", "kvsync.dev/model"]),
        ({"args": ["--kv-events-config", "{"]}, ["--kv-events-config", "not JSON"]),
        ({"args": ["--kv-events-config", "{}"]}, ["does not enable events"]),
        ({"args": ["--port", "x"]}, ["--port", "'x'"]),
        ({"args": ["--kv-events-config"]}, ["has no value"]),
        (
            {"args": ["--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"tcp://index:5557"}']},
            ["connects", "tcp://index:5557"],
        ),
        (
            {"args": ["--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"tcp://*:0"}']},
            ["endpoint", "tcp://*:0"],
        ),
        ({"notes": {"model": "m", "data-parallel-size": "3"}}, ["replay port 5558", "3 ranks"]),
    ],
)
def test_pods_that_cannot_be_followed_say_why(how, words):
    with pytest.raises(PodError) as caught:
        pod_publishers(pod("p", **how), qualified=False)
    for word in words:
        assert word in str(caught.value)


# -- the table ----------------------------------------------------------------------------------------------------


def test_table_tells_only_changes():
    sink = Sink()
    table = PodTable(sink, qualified=False)
    table.changed(pod("a"))
    table.changed(pod("a"))
    assert sink.calls == [("add", "a")]
    table.changed(pod("a", restarts=1))
    assert sink.specs["a"].epoch == "uid-a/1/0"
    table.changed(pod("a", restarts=1, notes={"model": "m", "data-parallel-size": "2", "replay-port": "6000"}))
    assert sorted(sink.specs) == ["a/0", "a/1"]
    table.changed(pod("a", notes={"model": "m", "http-port": "x"}))
    assert sink.specs == {}
    assert list(table.problems) == ["default/a"]
    table.changed(pod("a"))
    assert table.problems == {}
    table.replace([pod("b")])
    assert sorted(sink.specs) == ["b"]


def test_deleted_at_once_and_no_late_news_brings_it_back():
    sink = Sink()
    table = PodTable(sink, qualified=False)
    table.changed(pod("a"))
    table.changed(pod("a", deleting=True))
    assert sink.specs == {}
    table.changed(pod("a", ready=False))
    assert sink.specs == {}
    table.deleted(pod("a"))
    assert sink.calls.count(("remove", "a")) == 1


def test_a_successor_of_the_same_name_is_kept():
    sink = Sink()
    table = PodTable(sink, qualified=False)
    table.changed(pod("a-0", uid="old"))
    table.changed(pod("a-0", uid="new", ip="10.0.0.9"))
    table.deleted(pod("a-0", uid="old"))
    assert sink.specs["a-0"].epoch == "new/0/0"


# -- the watch ----------------------------------------------------------------------------------------------------


def test_list_with_pages_then_watch(server, follow):
    for number in range(5):
        server.apply(pod(f"p{number}"))
    server.apply(pod("other", labels={"app": "x"}))
    sink, found = follow(namespaces=("default",))
    wait_until("five publishers", lambda: len(sink.specs) == 5, deadline_s=DEADLINE_S)
    assert found.synced
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)
    server.apply(pod("late", ready=False))
    wait_until("the late pod is found", lambda: "late" in sink.specs, deadline_s=DEADLINE_S)
    assert not sink.specs["late"].ready
    server.apply(pod("late"))
    wait_until("the late pod is ready", lambda: sink.specs["late"].ready, deadline_s=DEADLINE_S)
    server.delete("p0")
    wait_until("the deleted pod is gone", lambda: "p0" not in sink.specs, deadline_s=DEADLINE_S)
    assert found.watchers[0].lists == 1


def test_resumes_from_the_last_version_and_from_bookmarks(server, follow):
    server.apply(pod("a"))
    sink, found = follow(namespaces=("default",))
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)
    version = server.bookmark()
    server.end_watches()
    wait_until(
        "a watch resumes from the bookmark",
        lambda: any(asked.query.get("resourceVersion") == version for asked in server.asked),
        deadline_s=DEADLINE_S,
    )
    server.apply(pod("b"))
    wait_until("pod b is found", lambda: "b" in sink.specs, deadline_s=DEADLINE_S)
    assert found.watchers[0].lists == 1
    assert server.asked[-1].query["allowWatchBookmarks"].lower() == "true"


def test_expired_version_lists_again_and_finds_what_left(server, follow):
    server.apply(pod("a"))
    server.apply(pod("b"))
    sink, found = follow(namespaces=("default",))
    wait_until("two publishers and a watch", lambda: len(sink.specs) == 2 and server.watchers, deadline_s=DEADLINE_S)
    server.store.forget(("pods", "default", "a"))  # nobody is told
    server.expire()
    wait_until("only pod b is left", lambda: sorted(sink.specs) == ["b"], deadline_s=DEADLINE_S)
    assert found.watchers[0].lists == 2


def test_outage_changes_nothing_and_heals(server, follow):
    server.apply(pod("a"))
    sink, found = follow(namespaces=("default",))
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)
    server.refuse(503)
    server.end_watches()
    wait_until("two failed requests", lambda: found.watchers[0].failures >= 2, deadline_s=DEADLINE_S)
    assert sorted(sink.specs) == ["a"]
    assert "503" in found.problems["namespace default"]
    server.apply(pod("b"))
    server.heal()
    wait_until("pods a and b are found", lambda: sorted(sink.specs) == ["a", "b"], deadline_s=DEADLINE_S)
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)


def test_forbidden_is_said_and_retried(server, follow):
    server.refuse(403)
    sink, found = follow(namespaces=("default",))
    wait_until("a problem is reported", lambda: found.problems, deadline_s=DEADLINE_S)
    assert "403" in found.problems["namespace default"]
    assert not found.synced
    server.heal()
    server.apply(pod("a"))
    wait_until("the pod is found", lambda: sink.specs, deadline_s=DEADLINE_S)


def test_several_namespaces_and_all(server, follow):
    for namespace in ("one", "two", "three"):
        server.apply(pod("p", namespace, uid=f"uid-{namespace}"))
    sink, _ = follow(namespaces=("one", "two"))
    wait_until("the pods of two namespaces", lambda: sorted(sink.specs) == ["one/p", "two/p"], deadline_s=DEADLINE_S)
    sink, _ = follow(namespaces=("*",))
    wait_until(
        "the pods of three namespaces",
        lambda: sorted(sink.specs) == ["one/p", "three/p", "two/p"],
        deadline_s=DEADLINE_S,
    )
