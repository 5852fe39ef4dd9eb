"""Pods made to hurt: whatever one pod contains, it is refused by name, and the pods behind it are followed."""

import json
import random

import pytest
from discovery_helpers import Sink, pod
from service_helpers import DEADLINE_S

from kvsync_indexer.discovery import PodError, PodTable, pod_publishers, watcher
from kvsync_testkit.waiting import wait_until

DEEP = 100_000


def events(**config):
    return ["--kv-events-config", json.dumps({"enable_kv_cache_events": True, **config})]


HOSTILE = {
    "deep configuration": {"args": ["--kv-events-config", "[" * DEEP]},
    "deep and closed": {"args": ["--kv-events-config", '{"a":' * DEEP + "1" + "}" * DEEP]},
    "deep key by key": {"args": ["--kv-events-config.endpoint", "[" * DEEP, "--model", "m"]},
    "port of 5,000 digits": {"args": ["--port", "1" * 5000]},
    "number of 5,000 digits": {"args": ["--kv-events-config", '{"hwm":' + "1" * 5000 + "}"]},
    "annotated port of 5,000 digits": {"notes": {"model": "m", "events-port": "1" * 5000}},
    "port beyond 65535": {"args": events(endpoint="tcp://*:99999")},
    "last rank beyond 65535": {"args": [*events(endpoint="tcp://*:65500"), "-dp", "60"]},
    "59,000 ranks": {"args": [*events(), "-dp", "59000"]},
    "59,000 annotated ranks": {"notes": {"model": "m", "data-parallel-size": "59000", "replay-port": "none"}},
    "megabytes of arguments": {"args": ["x" * (1 << 20)]},
    "many arguments": {"args": ["x"] * 100_000},
    "long model": {"notes": {"model": "m" * 5000}},
    "long topic": {"args": events(topic="t" * 5000)},
    "endpoint is a list": {"args": events(endpoint=[])},
    "endpoint is a map": {"args": events(endpoint={"a": 1})},
    "topic is a number": {"args": events(topic=7)},
    "the switch is a text": {"args": ["--kv-events-config", '{"enable_kv_cache_events":"yes"}']},
    "growing variables": {"command": ["sh", "-c", "A=xxxxxxxx;" + "A=$A$A$A$A;" * 30 + "vllm serve $A"]},
    "shells in shells": {"command": ["sh", "-c", 'sh -c \'sh -c "sh -c \\"sh -c x\\""\'']},
    "zero bytes": {"args": ["--port", "\0$X\0"]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_pod_is_refused_in_one_short_message(kind):
    sink = Sink()
    table = PodTable(sink, qualified=False)
    table.replace([pod("bad", **HOSTILE[kind]), pod("good")])
    assert sorted(sink.specs) == ["good"]
    assert list(table.problems) == ["default/bad"]
    assert len(table.problems["default/bad"]) <= 300
    with pytest.raises(PodError):
        pod_publishers(pod("bad", **HOSTILE[kind]), qualified=False)


def test_64_ranks_are_followed():
    specs = pod_publishers(
        pod("p", notes={"model": "m", "data-parallel-size": "64", "replay-port": "7000"}), qualified=False
    )
    assert len(specs) == 64


def mutated(rng, value, depth=0):
    """A copy of a pod in which values are replaced by ones of other types, sizes and depths."""
    if rng.random() < 0.03 + 0.02 * depth:
        nested = json.loads("[" * 50 + "]" * 50)
        return rng.choice([None, 7, -1, 1e308, True, "", "x" * 10_000, [], {}, nested, "9" * 5000, ["a"], {"a": None}])
    if isinstance(value, dict):
        return {key: mutated(rng, each, depth + 1) for key, each in value.items() if rng.random() > 0.03}
    if isinstance(value, list):
        return [mutated(rng, each, depth + 1) for each in value]
    return value


def hostile_pod(rng, number):
    how = dict(rng.choice([{}, *HOSTILE.values()]))
    made = pod(f"h{number}", restarts=rng.randrange(3), ready=rng.random() < 0.5, **how)
    made["spec"]["containers"][0]["env"] = [{"name": "A", "value": "1"}]
    return mutated(rng, made)


@pytest.mark.parametrize("seed", range(12))
def test_generated_pods_never_hide_the_pods_behind_them(seed):
    rng = random.Random(seed)
    sink = Sink()
    table = PodTable(sink, qualified=True)
    pods = [hostile_pod(rng, number) for number in range(40)]
    table.replace([*pods, pod("good")])
    assert "default/good" in sink.specs
    for made in pods:
        rng.choice([table.changed, table.deleted])(made)
    table.changed(pod("later"))
    assert "default/later" in sink.specs
    table.replace([pod("later")])
    assert list(sink.specs) == ["default/later"]
    assert table.problems == {}


# -- through the watch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_watch_survives_every_generated_pod(server, follow, seed):
    rng = random.Random(seed)
    sink, found = follow(namespaces=("default",))
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)
    for number in range(40):
        kind = rng.choice(["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ODD"])
        server.tell_raw(json.dumps({"type": kind, "object": hostile_pod(rng, number)}).encode())
    server.apply(pod("good"))
    wait_until("the good pod is found", lambda: "good" in sink.specs, deadline_s=DEADLINE_S)
    assert found.watchers[0].alive
    assert found.health_problem() is None


@pytest.mark.parametrize(
    "line",
    [b'{"type":"ADDED","object":7}', b'{"type":"ADDED"}', b"[]", b"7", b"{", b"\xff", b"[" * 100_000],
)
def test_an_event_that_is_none_makes_the_watcher_list_again(server, follow, line):
    sink, found = follow(namespaces=("default",))
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)
    server.tell_raw(line)
    wait_until("the pods are listed again", lambda: found.watchers[0].lists == 2, deadline_s=DEADLINE_S)
    server.apply(pod("good"))
    wait_until("the good pod is found", lambda: "good" in sink.specs, deadline_s=DEADLINE_S)


def test_pods_too_large_for_one_page_are_listed_in_smaller_ones(server, follow, monkeypatch):
    monkeypatch.setattr(watcher, "MAX_LIST_BYTES", 8_000)
    for number in range(8):
        server.apply(pod(f"p{number}", notes={"model": "m", "events-port": "7000", "filler": "x" * 5000}))
    sink, found = follow(namespaces=("default",))
    wait_until("all pods are found", lambda: len(sink.specs) == 8, deadline_s=DEADLINE_S)
    assert found.watchers[0].failures == 0


def test_health_notices_a_watch_thread_that_ended_or_hangs(server, follow, monkeypatch):
    _, found = follow(namespaces=("default",))
    one = found.watchers[0]
    wait_until("a watch runs", lambda: server.watchers, deadline_s=DEADLINE_S)
    assert found.health_problem() is None
    now = one._monotonic()
    monkeypatch.setattr(one, "_monotonic", lambda: now + 10 * watcher.SILENT_S)
    assert "has not turned" in found.health_problem()
    monkeypatch.undo()
    monkeypatch.setattr(type(one), "alive", property(lambda self: False))
    assert "has ended" in found.health_problem()


def test_problems_are_bounded_and_counted(server, follow):
    for number in range(130):
        server.apply(pod(f"p{number}", notes={}))
    _, found = follow(namespaces=("default",))
    wait_until("the pods are listed", lambda: found.problem_count == 130, deadline_s=DEADLINE_S)
    assert len(found.problems) == 101
    assert found.problems["further pods"].startswith("30 more pods")
