"""A refusal is one sentence that names the field, its value and what is allowed, in the operator and in `kvsync up`."""

import pytest

from kvsync_operator import names
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.models import duration_seconds, parse_resource


def document(kind, spec, **metadata):
    return {
        "apiVersion": "kvsync.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "a", "namespace": "b", **metadata},
        "spec": spec,
    }


ENGINE = {"model": {"name": "m"}}


@pytest.mark.parametrize(
    ("kind", "spec", "field", "words"),
    [
        ("MockEngine", {}, "spec.model", "is missing"),
        ("MockEngine", None, "spec", "is missing"),
        ("MockEngine", {**ENGINE, "replica": 3}, "spec.replica", "did you mean 'replicas'?"),
        ("MockEngine", {**ENGINE, "cache": {"numGPUBlocks": 3}}, "spec.cache.numGPUBlocks", "'numGpuBlocks'"),
        ("MockEngine", {**ENGINE, "template": {"env": [{"naming": "x"}]}}, "spec.template.env[0].name", "is missing"),
        ("MockEngine", {**ENGINE, "replicas": -1}, "spec.replicas", "-1 is not allowed"),
        ("MockEngine", {**ENGINE, "debug": True}, "spec.debug", "'Enabled' or 'Disabled'"),
        ("MockEngine", {**ENGINE, "cache": {"numGpuBlocks": 10}}, "spec.scheduler.maxModelLen", "144 tokens"),
        (
            "MockEngine",
            {**ENGINE, "events": {"dataParallelSize": 3}},
            "spec.events.replayPort",
            "5558-5560 overlap the event ports 5557-5559",
        ),
        (
            "MockEngine",
            {**ENGINE, "events": {"port": 7999, "dataParallelSize": 2, "replayPort": 9000}},
            "spec.events",
            "",
        ),
        ("MockEngine", {**ENGINE, "events": {"wireVersion": "0.8.5"}}, "spec.events.wireVersion", "0.8.5"),
        (
            "MockEngine",
            {"model": {"name": "m", "loras": [{"name": "m"}]}},
            "spec.model.loras",
            "name of the base model",
        ),
        ("MockEngine", {**ENGINE, "latency": {"timeScale": "0.0"}}, "spec.latency.timeScale", "greater than 0"),
        ("MockEngine", {**ENGINE, "latency": {"profile": "none", "custom": {}}}, "spec.latency", "exclude each other"),
        ("MockEngine", {**ENGINE, "faults": [{"kind": "drops"}]}, "spec.faults[0].kind", "'drops' is not allowed"),
        (
            "MockEngine",
            {**ENGINE, "faults": [{"kind": "drop", "milliseconds": 5}]},
            "spec.faults[0].milliseconds",
            "is only for delay",
        ),
        ("MockEngine", {**ENGINE, "terminationGrace": "30"}, "spec.terminationGrace", "'30' is not allowed"),
        ("PrefixIndex", {"router": {"port": 8090}}, "spec.router.port", "8090 is the index's own port"),
        ("PrefixIndex", {"router": {"port": 9002}, "endpointPicker": {}}, "spec.router.port", "9002, 9003 and 9090"),
        ("PrefixIndex", {"namespaces": ["a"], "endpointPicker": {}}, "spec.namespaces", "must be empty"),
        (
            "PrefixIndex",
            {"selector": {"matchLabels": {}}, "endpointPicker": {"createPool": "Enabled"}},
            "spec.selector",
            "needs matchLabels",
        ),
        ("PrefixIndex", {"endpointPicker": {"targetPorts": [1]}}, "spec.endpointPicker.createPool", "targetPorts"),
        (
            "PrefixIndex",
            {"endpointPicker": {"createPool": "Enabled", "targetPorts": [1, 1]}},
            "spec.endpointPicker.targetPorts",
            "more than once",
        ),
        (
            "PrefixIndex",
            {"endpointPicker": {"tls": "Disabled", "certificateSecretName": "a"}},
            "spec.endpointPicker.certificateSecretName",
            "needs tls Enabled",
        ),
        ("PrefixIndex", {"sync": {"staleAfter": "0"}}, "spec.sync.staleAfter", "from 1ms to 24h"),
        ("PrefixIndex", {"sync": {"staleAfter": "48h"}}, "spec.sync.staleAfter", "'48h' must be from 1ms to 24h"),
        ("PrefixIndex", {"sync": {"replayTimeout": "2h"}}, "spec.sync.replayTimeout", "from 1ms to 1h"),
        ("PrefixIndex", {"sync": {"auditInterval": "25h"}}, "spec.sync.auditInterval", "from 0s to 24h"),
        ("MockEngine", {**ENGINE, "terminationGrace": "2h"}, "spec.terminationGrace", "from 0s to 1h"),
        ("PrefixIndex", {"snapshot": {"size": "0"}}, "spec.snapshot.size", "at least 1 byte"),
        ("PrefixIndex", {"snapshot": {"size": "9" * 15 + "Ei"}}, "spec.snapshot.size", "less than 8Ei"),
        (
            "PrefixIndex",
            {"selector": {"matchLabels": {"a" * 64: "x"}}},
            "spec.selector.matchLabels." + "a" * 64,
            "is not allowed",
        ),
        ("PrefixIndex", {"selector": {"matchLabels": {"a..b/c": "x"}}}, "spec.selector.matchLabels.a..b/c", ""),
        *(
            ("PrefixIndex", {"publishers": [{"name": "p", "model": "m", **change}]}, f"spec.publishers[0].{field}", "")
            for change, field in (
                ({"endpoint": "tcp://10.0.0.1"}, "endpoint"),
                ({"endpoint": "tcp://10.0.0.1:0"}, "endpoint"),
                ({"endpoint": "tcp://10.0.0.1:65536"}, "endpoint"),
                ({"endpoint": "tcp://:5557"}, "endpoint"),
                ({"endpoint": "tcp://*:5557"}, "endpoint"),
                ({"endpoint": "tcp://*:5557", "direction": "Bind", "replayEndpoint": "tcp://*:1"}, "replayEndpoint"),
            )
        ),
        *(
            ("MockEngine", {**ENGINE, "template": {"resources": amounts}}, f"spec.template.resources.{field}", words)
            for amounts, field, words in (
                ({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}, "requests", "more than the limit"),
                ({"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}, "requests", "more than the limit"),
                ({"requests": {"disk": "1"}}, "requests", "no resource"),
                ({"limits": {"memory": "100m"}}, "limits", "whole number"),
                ({"limits": {"cpu": "0.0001"}}, "limits", "finer than 1m"),
                ({"limits": {"memory": "9Ei"}}, "limits", "too large"),
                ({"requests": {"example.com/gpu": "1"}}, "requests", "limit of the same amount"),
            )
        ),
        (
            "MockEngine",
            {**ENGINE, "template": {"tolerations": [{"operator": "Equal"}]}},
            "spec.template.tolerations[0].operator",
            "Exists without a key",
        ),
        ("PrefixIndex", {"namespaces": ["x", "x"]}, "spec.namespaces", "'x' occurs more than once"),
        (
            "PrefixIndex",
            {"snapshot": {"storageClassName": "fast"}},
            "spec.snapshot.storageClassName",
            "PersistentVolume",
        ),
        (
            "PrefixIndex",
            {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "spec.selector.matchExpressions[0].values",
            "at least one value",
        ),
    ],
)
def test_a_refusal_names_the_field(kind, spec, field, words):
    with pytest.raises(InvalidSpecError) as caught:
        parse_resource(document(kind, spec))
    assert caught.value.field == field
    assert words in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "UPPER", "1a", "a_b", "a.b", "-a", "a-", "a" * 41])
def test_a_bad_name_is_refused(name):
    with pytest.raises(InvalidSpecError, match=r"^metadata\.name: "):
        parse_resource(document("MockEngine", ENGINE, name=name))


@pytest.mark.parametrize("change", [{"kind": "Deployment"}, {"apiVersion": "kvsync.dev/v1"}, {"kind": None}], ids=str)
def test_another_kind_is_refused(change):
    with pytest.raises(InvalidSpecError, match=r"^kind: "):
        parse_resource({**document("MockEngine", ENGINE), **change})


def test_several_findings_say_how_many():
    with pytest.raises(InvalidSpecError, match=r"\(and 1 more\)$"):
        parse_resource(document("MockEngine", {**ENGINE, "replicas": -1, "seed": -1}))


def test_longest_name_fits_every_object():
    longest = "a" * names.MAX_NAME
    for made in (names.engine_name(longest), names.index_name(longest), names.router_name(longest)):
        assert len(made) + 11 <= 63


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("llama", "llama"),
        ("meta-llama/Llama-3.1-8B", "meta-llama-Llama-3.1-8B"),
        ("-.a.-", "a"),
        ("x" * 64, "x" * 54 + "-7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c"[:9]),
    ],
)
def test_label_values(text, value):
    assert names.label_value(text) == value


def test_long_names_stay_apart():
    one, other = names.label_value("m" * 80 + "a"), names.label_value("m" * 80 + "b")
    assert one != other
    assert max(len(one), len(other)) <= 63


@pytest.mark.parametrize(
    ("text", "seconds"), [("500ms", 0.5), ("10s", 10.0), ("2m", 120.0), ("1h", 3600.0), ("0", 0.0)]
)
def test_durations(text, seconds):
    assert duration_seconds(text) == seconds


def test_what_a_bound_endpoint_may_be():
    row = {
        "name": "p",
        "model": "m",
        "endpoint": "tcp://*:5557",
        "direction": "Bind",
        "replayEndpoint": "tcp://[::1]:1",
    }
    assert parse_resource(document("PrefixIndex", {"publishers": [row]})).spec.publishers[0].to_row()["bind"] is True


def test_no_two_indexes_share_a_role():
    """Names and namespaces contain `-` themselves, so that joining them is not enough."""
    parts = ["a", "index", "a-index", "index-a", "a-index-b", "b", "b-index", "a-a-index-b", "index-index"]
    owners: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for name in parts:
        for namespace in parts:
            for target in parts:
                role = names.watch_role_name(name, namespace, target)
                assert len(role) <= 253
                owners.setdefault((target, role), set()).add((namespace, name))
    assert [found for found in owners.values() if len(found) > 1] == []
