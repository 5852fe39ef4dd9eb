"""Schema: a real API server refuses invalid resources with a message that names the field."""

import copy

import pytest
from e2e_engines import build_engine
from e2e_index import build_index

from kvsync_testkit.kube import KubeError


def merged(base, change):
    """Return `base` with `change` merged into it, maps by key."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        result[key] = (
            merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
        )
    return result


def refusal(kube, obj):
    """Return the message with which the API server refuses `obj` as invalid or malformed. Nothing is stored."""
    with pytest.raises(KubeError) as caught:
        kube.apply(obj, dry_run=True)
    assert caught.value.status in (400, 422, 500), caught.value
    return caught.value.body


ENGINE = build_engine("schema", "default")
INDEX = build_index("schema", "default")

BAD_ENGINES = {
    "no model": ({"spec": {"model": None}}, "spec.model"),
    "no model name": ({"spec": {"model": {"name": None}}}, "spec.model.name"),
    "model name with spaces": ({"spec": {"model": {"name": "a b"}}}, "spec.model.name"),
    "negative replicas": ({"spec": {"replicas": -1}}, "spec.replicas"),
    "too many replicas": ({"spec": {"replicas": 100000}}, "spec.replicas"),
    "replicas as text": ({"spec": {"replicas": "two"}}, "spec.replicas"),
    "fractional replicas": ({"spec": {"replicas": 1.5}}, "spec.replicas"),
    "unknown field": ({"spec": {"replica": 1}}, "replica"),
    "unknown nested field": ({"spec": {"cache": {"blocksize": 16}}}, "blocksize"),
    "block size 0": ({"spec": {"cache": {"blockSize": 0}}}, "spec.cache.blockSize"),
    "unknown hash": ({"spec": {"cache": {"hashAlgorithm": "md5"}}}, "spec.cache.hashAlgorithm"),
    "hash seed not a number": ({"spec": {"cache": {"hashSeed": "x"}}}, "spec.cache.hashSeed"),
    "offload without size": ({"spec": {"cache": {"hostOffload": {}}}}, "spec.cache.hostOffload.blocks"),
    "cache smaller than a request": (
        {"spec": {"cache": {"numGpuBlocks": 4}, "scheduler": {"maxModelLen": 4096}}},
        "spec.scheduler.maxModelLen",
    ),
    "fewer tokens than sequences": (
        {"spec": {"scheduler": {"maxNumSeqs": 64, "maxNumBatchedTokens": 32}}},
        "spec.scheduler.maxNumBatchedTokens",
    ),
    "unknown policy": ({"spec": {"scheduler": {"policy": "lifo"}}}, "spec.scheduler.policy"),
    "profile and custom": (
        {"spec": {"latency": {"profile": "none", "custom": {"decodeBaseUs": 5}}}},
        "latency.profile and latency.custom",
    ),
    "time scale as a number": ({"spec": {"latency": {"timeScale": 0.5}}}, "spec.latency.timeScale"),
    "privileged port": ({"spec": {"events": {"port": 80}}}, "spec.events.port"),
    "overlapping ports": ({"spec": {"events": {"dataParallelSize": 2}}}, "spec.events.replayPort"),
    "events on the HTTP port": ({"spec": {"events": {"port": 8000}}}, "spec.events"),
    "wire version": ({"spec": {"events": {"wireVersion": "latest"}}}, "spec.events.wireVersion"),
    "debug as a boolean": ({"spec": {"debug": True}}, "spec.debug"),
    "bare duration": ({"spec": {"terminationGrace": 30}}, "spec.terminationGrace"),
    "adapter named like the model": (
        {"spec": {"model": {"loras": [{"name": "schema"}]}}},
        "spec.model.loras",
    ),
    "adapter twice": (
        {"spec": {"model": {"loras": [{"name": "a"}, {"name": "a"}]}}},
        "spec.model.loras",
    ),
    "name too long": ({"metadata": {"name": "e" * 41}}, "metadata.name"),
    "name begins with a digit": ({"metadata": {"name": "1engine"}}, "metadata.name"),
}

BAD_INDEXES = {
    "too many replicas": ({"spec": {"replicas": 11}}, "spec.replicas"),
    "unknown core": ({"spec": {"core": "java"}}, "spec.core"),
    "bare duration": ({"spec": {"sync": {"staleAfter": 5}}}, "spec.sync.staleAfter"),
    "duration without a unit": ({"spec": {"sync": {"staleAfter": "5"}}}, "spec.sync.staleAfter"),
    "unknown policy": ({"spec": {"router": {"policy": "fastest"}}}, "spec.router.policy"),
    "router on the index's port": ({"spec": {"router": {"port": 8090}}}, "spec.router"),
    "router on a port of the picker": ({"spec": {"router": {"port": 9002}, "endpointPicker": {}}}, "spec.router"),
    "picker over namespaces": ({"spec": {"namespaces": ["a"], "endpointPicker": {}}}, "spec.namespaces"),
    "pool with expressions": (
        {
            "spec": {
                "selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                "endpointPicker": {"createPool": "Enabled"},
            }
        },
        "spec.selector",
    ),
    "ports of a foreign pool": ({"spec": {"endpointPicker": {"targetPorts": [8000]}}}, "spec.endpointPicker"),
    "namespace with capitals": ({"spec": {"namespaces": ["Team"]}}, "spec.namespaces"),
    "namespace twice": ({"spec": {"namespaces": ["a", "a"]}}, "spec.namespaces"),
    "values for Exists": (
        {"spec": {"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}},
        "spec.selector.matchExpressions",
    ),
    "storage class without a claim": ({"spec": {"snapshot": {"storageClassName": "fast"}}}, "snapshot"),
    "duration beyond the flag": ({"spec": {"sync": {"staleAfter": "48h"}}}, "spec.sync.staleAfter"),
    "duration beyond every number": ({"spec": {"sync": {"replayTimeout": "999999999h"}}}, "spec.sync.replayTimeout"),
    "publisher without a port": (
        {"spec": {"publishers": [{"name": "p", "model": "m", "endpoint": "tcp://10.0.0.1"}]}},
        "spec.publishers",
    ),
    "connecting to a wildcard": (
        {"spec": {"publishers": [{"name": "p", "model": "m", "endpoint": "tcp://*:5557"}]}},
        "spec.publishers",
    ),
    "unknown field": ({"spec": {"routers": {}}}, "routers"),
    "publisher without an endpoint": ({"spec": {"publishers": [{"name": "p", "model": "m"}]}}, "endpoint"),
}


@pytest.mark.parametrize("case", BAD_ENGINES)
def test_a_bad_engine_is_refused_naming_the_field(kube, installation, case):
    change, field = BAD_ENGINES[case]
    assert field in refusal(kube, merged(ENGINE, change))


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_a_bad_index_is_refused_naming_the_field(kube, installation, case):
    change, field = BAD_INDEXES[case]
    assert field in refusal(kube, merged(INDEX, change))


def test_defaults_are_filled_in_and_what_may_not_change_does_not(kube, deploy, namespace):
    engine = build_engine("fixed", namespace, replicas=0)
    stored = kube.apply(engine)
    assert stored["spec"]["cache"] == {"blockSize": 16, "numGpuBlocks": 4096, "hashAlgorithm": "sha256"}
    assert stored["spec"]["events"]["port"] == 5557
    assert "spec.model.name cannot be changed" in refusal(kube, merged(engine, {"spec": {"model": {"name": "other"}}}))

    index = build_index("fixed", namespace, replicas=0)
    kube.apply(index)
    claim = merged(index, {"spec": {"snapshot": {"volume": "PersistentVolumeClaim"}}})
    assert "spec.snapshot.volume" in refusal(kube, claim)


def test_scale_subresource_and_printer_columns(kube, deploy, namespace):
    engine = deploy.engine("columns", namespace, replicas=0)
    path = f"/apis/kvsync.dev/v1alpha1/namespaces/{namespace}/mockengines/columns"
    assert kube.call("GET", path + "/scale")["spec"].get("replicas", 0) == 0
    engine.scale(1)
    engine.wait_ready(1)
    table = kube.call("GET", path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    names = [column["name"] for column in table["columnDefinitions"]]
    assert names[:4] == ["Name", "Ready", "Desired", "Age"]


def test_every_sample_is_accepted(kube, installation):
    samples = installation.samples()
    assert samples, "config/samples is empty"
    for obj in samples:
        obj["metadata"].setdefault("namespace", "default")
        kube.apply(obj, dry_run=True)
