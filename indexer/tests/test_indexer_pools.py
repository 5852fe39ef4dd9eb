"""InferencePools: reading them, the pods that they select, and the endpoints of these pods."""

import threading

import pytest
from discovery_helpers import pod
from service_helpers import DEADLINE_S

from kvsync_indexer.config import IndexerConfig
from kvsync_indexer.discovery.pool import PoolError, PoolSpec, PoolTable, read_pool
from kvsync_indexer.discovery.poolendpoints import PoolMembers
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.pools import PoolFollower
from kvsync_testkit.waiting import wait_until

LABELS = {"app": "engine"}


def pool(name="lab", labels=LABELS, ports=(8000,), namespace="default"):
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"matchLabels": dict(labels)},
            "targetPorts": [{"number": port} for port in ports],
            "endpointPickerRef": {"name": "epp", "port": {"number": 9002}},
        },
    }


def engine(name, **how):
    return pod(name, labels=how.pop("labels", LABELS), **how)


# -- one pool -----------------------------------------------------------------------------------------------------


def test_a_pool_is_a_selector_and_ports():
    assert read_pool(pool(labels={"b": "2", "a.io/x": ""}, ports=(8000, 8001))) == PoolSpec("a.io/x=,b=2", (8000, 8001))


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (None, "spec is missing"),
        ({}, "matchLabels must have 1 to 64"),
        ({"selector": {"matchLabels": {}}}, "matchLabels must have 1 to 64"),
        ({"selector": {"matchLabels": {"a": "b,c"}}}, "'b,c' is not a label"),
        ({"selector": {"matchLabels": {"a in (b)": ""}}}, "'a in (b)'"),
        ({"selector": {"matchLabels": {"a": 1}}}, "is not a label"),
        ({"selector": {"matchLabels": LABELS}}, "targetPorts must have 1 to 8"),
        ({"selector": {"matchLabels": LABELS}, "targetPorts": [{"number": 1}] * 9}, "targetPorts must have 1 to 8"),
        ({"selector": {"matchLabels": LABELS}, "targetPorts": [{"number": True}]}, "True is not a port"),
        ({"selector": {"matchLabels": LABELS}, "targetPorts": [{"number": 0}]}, "0 is not a port"),
        ({"selector": {"matchLabels": LABELS}, "targetPorts": [{"number": 9}, {"number": 9}]}, "a port twice"),
    ],
)
def test_a_pool_that_cannot_be_used_is_refused(spec, problem):
    with pytest.raises(PoolError) as caught:
        read_pool({"metadata": {"name": "lab"}, "spec": spec})
    assert problem in str(caught.value)


def test_a_version_that_cannot_be_read_changes_nothing():
    seen = []
    table = PoolTable("lab", seen.append)
    assert "no InferencePool lab" in table.problems["pool lab"]
    table.replace([pool("other"), pool()])
    table.changed(pool(ports=()))
    assert "targetPorts" in table.problems["pool lab"]
    table.changed(pool())
    table.deleted(pool("other"))
    assert (seen, table.problems) == ([PoolSpec("app=engine", (8000,))], {})
    table.deleted(pool())
    assert seen[1:] == [None]


# -- the endpoints of pods ----------------------------------------------------------------------------------------


def members(*pods, ports=(8000,)):
    made = PoolMembers(lambda: None)
    made.take_pool(PoolSpec("app=engine", ports))
    made.replace(pods)
    return made


def shown(made):
    return [(each.name, each.http_url, each.ready) for each in made.endpoints()]


def test_an_endpoint_has_the_name_of_its_publisher():
    made = members(engine("b", ready=False), engine("a", ip="fd00::1"))
    assert shown(made) == [("a", "http://[fd00::1]:8000", True), ("b", "http://10.0.0.1:8000", False)]
    assert {each.model for each in made.endpoints()} == {"m"}


def test_each_port_is_one_rank():
    args = ["--model", "m", "--data-parallel-multi-port-external-lb", "--data-parallel-size-local", "2"]
    args += ["--data-parallel-start-rank", "2", "--kv-events-config.enable_kv_cache_events=true"]
    made = members(engine("a", notes={}, args=args), ports=(8000, 8001))
    assert shown(made) == [("a/2", "http://10.0.0.1:8000", True), ("a/3", "http://10.0.0.1:8001", True)]


def test_ports_are_ranks_by_position_if_the_publishers_name_one_url():
    notes = {"model": "m", "data-parallel-size": "2", "replay-port": "none"}
    made = members(engine("a", notes=notes), ports=(9001, 9000))
    assert shown(made) == [("a/0", "http://10.0.0.1:9001", True), ("a/1", "http://10.0.0.1:9000", True)]


def test_ranks_behind_one_port_share_it():
    notes = {"model": "m", "data-parallel-size": "2", "replay-port": "none"}
    made = members(engine("a", notes=notes))
    assert [(each.name, each.http_url, each.http_rank) for each in made.endpoints()] == [
        ("a/0", "http://10.0.0.1:8000", 0),
        ("a/1", "http://10.0.0.1:8000", 1),
    ]


def test_a_pod_that_the_index_cannot_follow_is_an_endpoint_all_the_same():
    stranger = engine("a", notes={})
    assert shown(members(stranger)) == [("a", "http://10.0.0.1:8000", True)]
    made = members(stranger, ports=(8000, 8001))
    assert [each.name for each in made.endpoints()] == ["a/0", "a/1"]
    assert "no model" in made.problems["default/a"]


def test_a_sole_port_leads_to_every_publisher_behind_a_proxy_in_the_pod():
    assert shown(members(engine("a"), ports=(9000,))) == [("a", "http://10.0.0.1:9000", True)]
    notes = {"model": "m", "data-parallel-size": "2", "replay-port": "none"}
    made = members(engine("a", notes=notes), ports=(9000,))
    assert [(each.name, each.http_url) for each in made.endpoints()] == [
        ("a/0", "http://10.0.0.1:9000"),
        ("a/1", "http://10.0.0.1:9000"),
    ]


def test_a_port_without_a_publisher_takes_no_name_of_another():
    notes = {"model": "m", "data-parallel-size": "3", "replay-port": "none"}
    made = members(engine("a", notes=notes), ports=(8000, 9000))
    assert [each.name for each in made.endpoints()] == ["a/0", "a/1", "a/2", "a:9000"]


def test_pods_come_and_go():
    calls = []
    made = PoolMembers(lambda: calls.append(1))
    assert made.endpoints() is None
    made.take_pool(PoolSpec("app=engine", (8000,)))
    assert made.endpoints() is None
    made.replace([engine("a"), engine("no-address", ip=None), {"metadata": 3}, "text"])
    assert [each.name for each in made.endpoints()] == ["a"]
    made.changed(engine("b"))
    made.changed(engine("a", deleting=True))
    assert [each.name for each in made.endpoints()] == ["b"]
    made.deleted(engine("b"))
    assert made.endpoints() == []
    assert len(calls) == 5
    made.take_pool(None)
    assert made.endpoints() == []


# -- watches ------------------------------------------------------------------------------------------------------


@pytest.fixture
def follow_pool(follow):
    """A function that starts discovery of the pods of the pool `lab`."""
    return lambda: follow(namespaces=("default",), pool="lab")


def test_the_index_follows_the_pods_of_a_pool(server, follow_pool):
    server.put(pool())
    server.apply(engine("a"))
    server.apply(pod("other"))
    sink, found = follow_pool()
    wait_until("the pods are listed", lambda: found.synced and sink.specs, deadline_s=DEADLINE_S)
    assert (sorted(sink.specs), found.problems) == (["a"], {})
    query = next(asked.query for asked in server.asked if asked.plural == "inferencepools")
    assert query["fieldSelector"] == "metadata.name=lab"
    server.apply(engine("b"))
    wait_until("a new pod is found", lambda: "b" in sink.specs, deadline_s=DEADLINE_S)


def test_a_new_selector_exchanges_the_pods(server, follow_pool):
    server.put(pool())
    server.apply(engine("a"))
    server.apply(engine("b", labels={"app": "next"}))
    sink, found = follow_pool()
    wait_until("pod a is found", lambda: "a" in sink.specs, deadline_s=DEADLINE_S)
    before = found.watchers[0]
    server.put(pool(labels={"app": "next"}))
    wait_until("only pod b is left", lambda: sorted(sink.specs) == ["b"], deadline_s=DEADLINE_S)
    wait_until("the first watch has ended", lambda: not before.alive, deadline_s=DEADLINE_S)
    server.store.delete(("inferencepools", "default", "lab"))
    wait_until("a deleted pool has no pods", lambda: not sink.specs, deadline_s=DEADLINE_S)
    assert "no InferencePool lab" in found.problems["pool lab"]
    server.put(pool())
    wait_until("a new pool has its pods", lambda: sorted(sink.specs) == ["a"], deadline_s=DEADLINE_S)


def test_the_watch_on_the_pool_resumes(server, follow_pool):
    server.put(pool())
    server.apply(engine("a"))
    sink, _ = follow_pool()
    wait_until("two watches run", lambda: len(server.watchers) == 2, deadline_s=DEADLINE_S)
    version = server.bookmark()
    server.end_watches()
    wait_until(
        "the pool's watch resumes from the bookmark",
        lambda: any(
            asked.plural == "inferencepools" and asked.query.get("resourceVersion") == version for asked in server.asked
        ),
        deadline_s=DEADLINE_S,
    )
    server.expire()
    server.put(pool(labels={"app": "none"}))
    wait_until("the new selector is used", lambda: not sink.specs, deadline_s=DEADLINE_S)


def test_an_index_is_ready_where_the_kind_is_not_installed(server, follow_pool):
    server.fail("GET", "/inferencepools$", 404, times=2)
    server.put(pool())
    server.apply(engine("a"))
    sink, found = follow_pool()
    wait_until("the pool counts as missing", lambda: found.synced, deadline_s=DEADLINE_S)
    wait_until("it is found once the kind is installed", lambda: "a" in sink.specs, deadline_s=DEADLINE_S)


def test_a_kind_that_vanishes_removes_no_pod(server, follow_pool):
    server.put(pool())
    server.apply(engine("a"))
    sink, found = follow_pool()
    wait_until("pod a is found", lambda: "a" in sink.specs and len(server.watchers) == 2, deadline_s=DEADLINE_S)
    server.fail("GET", "/inferencepools$", 404, times=1_000_000)
    server.end_watches()
    wait_until(
        "the problem is reported",
        lambda: "404" in found.problems.get("inferencepools of namespace default", ""),
        deadline_s=DEADLINE_S,
    )
    assert sorted(sink.specs) == ["a"]


def test_a_front_is_told_of_every_change(server):
    server.put(pool(ports=(8000, 8001)))
    server.apply(engine("a"))
    told = threading.Event()
    follower = PoolFollower("lab", "default", api=server.api())
    assert follower.endpoints() is None
    follower.start(told.set)
    try:
        wait_until("the endpoints are known", lambda: follower.endpoints(), deadline_s=DEADLINE_S)
        assert [each.http_url for each in follower.endpoints()] == ["http://10.0.0.1:8000", "http://10.0.0.1:8001"]
        told.clear()
        server.apply(engine("a", deleting=True))
        wait_until("the pod that leaves is no endpoint", lambda: follower.endpoints() == [], deadline_s=DEADLINE_S)
        assert told.wait(DEADLINE_S)
        assert follower.problem() is None
    finally:
        follower.stop()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"publishers": "x"}, "--pool: needs --discover kubernetes"),
        ({"discover": "kubernetes", "namespaces": ("a", "b")}, "one --namespace"),
        ({"discover": "kubernetes", "namespaces": ("*",)}, "one --namespace"),
    ],
)
def test_a_pool_needs_one_namespace(values, problem):
    with pytest.raises(ConfigError) as caught:
        IndexerConfig.parse({"pool": "lab", **values})
    assert problem in str(caught.value)
