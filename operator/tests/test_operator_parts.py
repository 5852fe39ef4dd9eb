"""The small parts: cache, watchdog, publisher counts, settings, client errors, smoke check and public names."""

import json

import kubernetes
import pytest
from click.testing import CliRunner

from kvsync_operator import errors, names, smoke
from kvsync_operator.cache import Cache, Key
from kvsync_operator.client import KubeClient, resource_path
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.grants import Grants
from kvsync_operator.main import main
from kvsync_operator.publishers import count_publishers, least_favourable, ready_addresses, serves_tls
from kvsync_operator.reconcile import SyncReport, find_orphans
from kvsync_operator.reconcile.admission import MAX_CONFIG_MAP_BYTES, check_sizes
from kvsync_operator.settings import build_settings
from kvsync_operator.watchdog import Watchdog


def child(name="llama-engine", uid="u1", version=5, **labels):
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": "lab",
            "uid": uid,
            "resourceVersion": str(version),
            "managedFields": ["much"],
            "labels": {names.LABEL_MANAGED_BY: names.FIELD_MANAGER, names.LABEL_ENGINE: "llama", **labels},
        },
    }


def resource(uid="r1", version=5):
    metadata = {"name": "llama", "namespace": "lab", "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": names.API_VERSION, "kind": "MockEngine", "metadata": metadata}


KEY = Key("MockEngine", "lab", "llama")


def test_cache_keeps_the_newest_and_forgets_by_identity():
    cache = Cache()
    assert cache.put_object(child(version=7)) == KEY
    assert cache.put_object(child(version=6)) == KEY
    (known,) = cache.children(KEY)
    assert known["metadata"]["resourceVersion"] == "7"
    assert "managedFields" not in known["metadata"]
    cache.put_object(child(uid="u2", version=3))  # made again: another object, whatever its version
    assert cache.drop_object(child(uid="u1", version=8)) == KEY
    assert cache.children(KEY)[0]["metadata"]["uid"] == "u2"
    cache.drop_object(child(uid="u2", version=9))
    assert cache.children(KEY) == ()


def test_cache_of_resources_tells_namesakes_apart():
    cache = Cache()
    cache.put_resource(resource())
    assert cache.put_resource(resource(uid="r2", version=1)) == KEY
    assert not cache.drop_resource(KEY, "r1")
    assert cache.drop_resource(KEY, "r2")
    assert cache.resource(KEY) is None


def test_objects_without_our_label_belong_to_nobody():
    cache = Cache()
    assert cache.put_object(child(**{names.LABEL_MANAGED_BY: "helm"})) is None
    assert cache.children(KEY) == ()


def test_orphans_are_those_of_indexes_that_are_gone():
    role = child("r", **{names.LABEL_INDEX: "main", names.LABEL_INDEX_NAMESPACE: "home"})
    assert find_orphans([role], {("home", "main")}) == []
    (found,) = find_orphans([role], {("lab", "main")})
    assert found.name == "r"
    role["metadata"]["labels"][names.LABEL_MANAGED_BY] = "someone"
    assert find_orphans([role], set()) == []


class TestWatchdog:
    def test_an_echo_in_time_is_fine(self):
        dog = Watchdog(10.0)
        dog.expect(child(version=5), 0.0)
        dog.saw(child(version=5), 9.0)
        assert dog.silent(100.0) == {}

    def test_an_echo_that_stays_away_is_silence(self):
        dog = Watchdog(10.0)
        dog.expect(child(version=5), 0.0)
        dog.expect(child(version=6), 8.0)
        assert dog.silent(10.0) == {}
        assert dog.silent(11.0) == {"ConfigMap": 11.0}

    def test_a_watch_that_lags_is_alive(self):
        dog = Watchdog(10.0)
        dog.expect(child(version=9), 0.0)
        dog.saw(child(version=5), 8.0)
        assert dog.silent(15.0) == {}
        assert dog.silent(19.0) == {"ConfigMap": 11.0}

    def test_news_before_the_answer_of_the_write(self):
        dog = Watchdog(10.0)
        dog.saw(child(version=5), 0.0)
        dog.expect(child(version=5), 0.0)
        assert dog.silent(100.0) == {}

    def test_a_deleted_object_owes_nothing(self):
        dog = Watchdog(10.0)
        dog.expect(child(version=5), 0.0)
        dog.saw(child(version=4), 1.0, deleted=True)
        assert dog.silent(100.0) == {}

    def test_unwatched_namespaces_owe_nothing(self):
        dog = Watchdog(10.0, frozenset({"other"}))
        dog.expect(child(version=5), 0.0)
        assert dog.silent(100.0) == {}


def readiness(*states):
    return {
        "ready": True, "core": "native", "publishers": len(states), "live": states.count("live"), "problem": None,
        "discovery": {}, "states": {state: states.count(state) for state in states},
    }  # fmt: skip


def test_publishers_are_counted_by_state():
    report = count_publishers(readiness("live", "live", "stale", "replaying", "gap", "quarantined", "connecting"))
    assert report == SyncReport(total=7, live=2, stale=1, resyncing=3, quarantined=1)
    assert count_publishers(readiness()) == SyncReport()


def test_an_index_that_does_not_count_its_publishers_by_state_is_an_error():
    answer = readiness("live", "stale")
    del answer["states"]
    assert "too old" in count_publishers(answer).error


@pytest.mark.parametrize(
    ("document", "tls"),
    [
        ({}, False),
        ({"spec": None}, False),
        ({"spec": {"api": {"tlsSecretName": "t"}}}, True),
        ({"spec": {"api": 1}}, False),
    ],
)
def test_whether_an_index_serves_tls_is_known_of_any_document(document, tls):
    assert serves_tls(document) is tls


@pytest.mark.parametrize("answer", [{}, [], None, {"publishers": {}}, readiness() | {"states": []}])
def test_another_answer_is_an_error_and_no_zero(answer):
    assert count_publishers(answer).error


def test_the_least_favourable_pod_speaks_for_all():
    good, bad = SyncReport(total=3, live=3), SyncReport(total=3, live=1, stale=2)
    assert least_favourable([good, bad]) == bad
    assert least_favourable([good, SyncReport(error="no answer")]).error == "no answer"
    assert least_favourable([]).error


def test_only_ready_pods_that_stay_are_asked():
    def pod(address, ready="True", **metadata):
        conditions = [{"type": "Ready", "status": ready}]
        return {"metadata": metadata, "status": {"podIP": address, "conditions": conditions}}

    pods = [pod("b"), pod("a"), pod("c", ready="False"), pod("d", deletionTimestamp="now"), pod("")]
    assert ready_addresses(pods) == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "name at least one with --namespace"),
        ({"namespaces": ("a",), "all_namespaces": True}, "or serve all with --all-namespaces"),
        ({"namespaces": ("a",), "http_port": 70000}, "--http-port: 70000: "),
        ({"namespaces": ("A",)}, "--namespace: 'A': "),
        ({"namespaces": ("a",), "cross_namespace": ("a",)}, "--cross-namespace: 'a': "),
        ({"namespaces": ("a",), "cross_namespace": ("a=b=c",)}, "--cross-namespace: 'a=b=c': "),
    ],
)
def test_bad_settings_are_one_line(values, words):
    with pytest.raises(errors.ConfigError) as caught:
        build_settings(**values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_command_line_refuses_with_code_2(monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = CliRunner().invoke(main, ["--namespace", "a", "--resync-s", "1"])
    assert result.exit_code == 2
    assert result.stderr.startswith("kvsync-operator: --resync-s: 1.0: ")
    result = CliRunner().invoke(main, ["--namespace", "a"])
    assert result.exit_code == 2
    assert "no cluster" in result.stderr


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, errors.NotFoundError),
        (409, errors.ConflictError),
        (401, errors.ForbiddenError),
        (403, errors.ForbiddenError),
        (422, errors.RefusedError),
        (400, errors.RefusedError),
        (429, errors.UnavailableError),
        (503, errors.UnavailableError),
        (0, errors.UnavailableError),
    ],
)
def test_answers_become_errors_of_ours(status, kind):
    error = KubeClient._failed("GET", status, json.dumps({"message": "why"}))
    assert type(error) is kind
    assert str(error) == "why"
    assert error.status == status


def test_paths():
    assert resource_path("v1", "Pod", "a", "b") == "/api/v1/namespaces/a/pods/b"
    assert resource_path("apps/v1", "Deployment", None) == "/apis/apps/v1/deployments"


async def test_no_server_is_an_error_of_ours():
    configuration = kubernetes.client.Configuration()
    configuration.host = "http://127.0.0.1:9"
    configuration.retries = False
    client = KubeClient(kubernetes.client.ApiClient(configuration), 1, 2.0)
    with pytest.raises(errors.UnavailableError, match="no answer from the API server"):
        await client.served_kinds()
    client.close()


def test_smoke_waits_and_gives_up():
    time = iter(range(0, 1000, 40))
    failures = iter(["no", "no", None])
    assert smoke.wait_for("u", lambda _: next(failures), lambda: next(time), lambda _: None) is None
    assert smoke.wait_for("u", lambda _: "down", lambda: next(time), lambda _: None) == "down"
    assert smoke.main([]) == 2


@pytest.mark.parametrize(
    ("grants", "index", "pods", "allowed"),
    [
        ((), "a", "a", True),
        ((), "a", "b", False),
        (("a=b",), "a", "b", True),
        (("a=b",), "b", "a", False),
        (("a=b",), "c", "b", False),
        (("*=b",), "c", "b", True),
        (("a=*",), "a", "c", True),
        (("a=*",), "b", "c", False),
        (("*=*",), "b", "c", True),
    ],
)
def test_grants(grants, index, pods, allowed):
    assert Grants.parse(grants).allow(index, pods) is allowed


@pytest.mark.parametrize("text", ["a", "=", "a=", "=b", "A=b", "a=b=c", "a=b\n", "**=b", "a b=c"])
def test_bad_grants(text):
    with pytest.raises(ValueError, match="INDEX_NAMESPACE=POD_NAMESPACE"):
        Grants.parse([text])


def test_a_config_map_that_no_api_server_stores_is_refused():
    small = {"kind": "ConfigMap", "data": {"file": "x" * (MAX_CONFIG_MAP_BYTES - 4)}}
    check_sizes([small, {"kind": "Service"}])
    with pytest.raises(InvalidSpecError, match="1048577 bytes"):
        check_sizes([{"kind": "ConfigMap", "data": {"file": "x" * (MAX_CONFIG_MAP_BYTES - 3)}}])
    with pytest.raises(InvalidSpecError):
        check_sizes([{"kind": "ConfigMap", "data": {"a": "\u20ac" * (MAX_CONFIG_MAP_BYTES // 3), "b": "x"}}])
