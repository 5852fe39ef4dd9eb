"""What the operator writes is what the pods read: configuration files, command lines, probe paths, permissions.

The members do not import each other, so their contracts are tested here.
"""

from pathlib import Path

import click
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from operator_specs import specs

from kvsync_indexer.config import IndexerConfig, parse_duration
from kvsync_indexer.discovery.pool import PoolSpec, read_pool
from kvsync_indexer.errors import ConfigError
from kvsync_indexer.publishers_file import parse_publishers
from kvsync_mockpod.config import build_config
from kvsync_mockpod.engine.latency import PROFILES
from kvsync_mockpod.errors import ConfigError as EngineConfigError
from kvsync_mockpod.faults.spec import EVENT_KINDS, HTTP_KINDS, REPLAY_KINDS, parse_plan
from kvsync_mockpod.latency import build_latency
from kvsync_operator import names
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.handlers import CHILD_KINDS
from kvsync_operator.models import duration_seconds, parse_resource
from kvsync_operator.models.common import DurationBounds
from kvsync_operator.models.endpointpicker import EndpointPicker
from kvsync_operator.models.faults import FaultRule
from kvsync_operator.models.mockengine import Latency, MockEngineSpec
from kvsync_operator.models.prefixindex import PrefixIndexSpec, Sync
from kvsync_operator.models.router import Router
from kvsync_operator.models.schema import structural_schema
from kvsync_operator.objects import Images, build_objects
from kvsync_operator.objects.picker import CERTIFICATE_DIR, build_pool, picker_args, picker_settings, pool_name
from kvsync_operator.objects.prefixindex import index_args
from kvsync_operator.objects.routing import router_args, router_settings
from kvsync_router.config import RouterConfig
from kvsync_router.flags import settings_of
from kvsync_router.front import router_front
from kvsync_router.picker.front import picker_front

ROOT = Path(__file__).resolve().parents[2]
CASES = sorted((ROOT / "operator/tests/golden").glob("*everything/input.yaml"))
FILES = [*sorted((ROOT / "config/samples").glob("*.yaml")), *CASES]


def resources(kind):
    """Return every resource of `kind` in the samples and the golden cases, as parameters."""
    documents = [(file, document) for file in FILES for document in yaml.safe_load_all(file.read_text()) if document]
    return [
        pytest.param(parse_resource(document), id=f"{file.parent.name}/{document['metadata']['name']}")
        for file, document in documents
        if document.get("kind") == kind
    ]


@pytest.mark.parametrize("engine", resources("MockEngine"))
def test_the_mock_pod_reads_its_config_map(engine, tmp_path):
    (config_map,) = [obj for obj in build_objects(engine, Images()) if obj["kind"] == "ConfigMap"]
    file = tmp_path / "config.yaml"
    file.write_text(config_map["data"]["config.yaml"])
    config = build_config({}, file)
    assert config.names == (engine.spec.model.name,)
    assert config.max_model_len == engine.spec.scheduler.max_model_len
    assert config.events.endpoint == f"tcp://*:{engine.spec.events.port}"
    assert config.mock_debug == (engine.spec.debug == "Enabled")
    assert config.mock_drain_timeout < duration_seconds(engine.spec.termination_grace)
    build_latency(config)


@pytest.mark.parametrize("engine", resources("MockEngine"))
def test_the_mock_pod_reads_its_fault_plan(engine):
    (config_map,) = [obj for obj in build_objects(engine, Images()) if obj["kind"] == "ConfigMap"]
    assert ("faults.yaml" in config_map["data"]) == bool(engine.spec.faults)
    plan = parse_plan(yaml.safe_load(config_map["data"].get("faults.yaml", "{}")))
    assert [rule.kind for rule in plan.faults] == [rule.kind for rule in engine.spec.faults]


def test_fault_kinds_are_the_mock_engines():
    kinds = FaultRule.model_json_schema()["properties"]["kind"]["enum"]
    assert set(kinds) == EVENT_KINDS | REPLAY_KINDS | HTTP_KINDS


def test_latency_profiles_are_the_mock_engines():
    profile = Latency.model_json_schema()["properties"]["profile"]["anyOf"][0]["enum"]
    assert sorted(profile) == sorted(PROFILES)


SWITCHES = ("--router-access-log", "--epp-single-address", "--no-epp-secure-serving")
"""The flags without a value."""


def as_flags(args):
    flags = {}
    args = [each for each in args if each not in SWITCHES]
    for flag, value in zip(args[::2], args[1::2], strict=True):
        assert flag.startswith("--")
        flags.setdefault(flag, []).append(value.replace("$$", "$"))  # as Kubernetes does
    return flags


def index_config(index):
    """What `kvsync-indexer` makes of the command line; raises its ConfigError."""
    flags = as_flags(index_args(index))
    return IndexerConfig.parse(
        {
            "port": int(flags["--port"][0]),
            "core": flags["--core"][0],
            "discover": flags["--discover"][0],
            **{name: flags[f"--{name}"][0] for name in ("selector", "pool") if f"--{name}" in flags},
            "namespaces": tuple(flags["--namespace"]),
            "stale_after_s": flags["--stale-after"][0],
            "replay_timeout_s": flags["--replay-timeout"][0],
            "audit_interval_s": flags.get("--audit-interval", ["0"])[0],
            "tokenizers": tuple(flags.get("--tokenizer", ())),
            "bootstrap_from": flags.get("--bootstrap-from", [None])[0],
            "token_file": flags.get("--token-file", [None])[0],
            "tls_cert": flags.get("--tls-cert", [None])[0],
            "tls_key": flags.get("--tls-key", [None])[0],
            "curve_server_key": flags.get("--curve-server-key", [None])[0],
        }
    )


@pytest.mark.parametrize("index", resources("PrefixIndex"))
def test_the_index_takes_its_command_line(index):
    flags = as_flags(index_args(index))
    config = index_config(index)
    assert config.port == names.INDEX_PORT
    assert config.stale_after_s == duration_seconds(index.spec.sync.stale_after)
    if "--audit-interval" in flags:
        assert parse_duration(flags["--audit-interval"][0]) == duration_seconds(index.spec.sync.audit_interval)


@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ({"replicas": 1}, None),
        ({"replicas": 2}, "http://main-index.lab.svc:8090"),
        ({"replicas": 2, "api": {"tokenSecretName": "t"}}, "http://main-index.lab.svc:8090"),
        ({"replicas": 2, "api": {"tlsSecretName": "t"}}, None),
    ],
)
def test_a_new_replica_starts_from_the_service_of_its_index(spec, peer):
    metadata = {"name": "main", "namespace": "lab"}
    document = {"apiVersion": names.API_VERSION, "kind": names.PREFIX_INDEX, "metadata": metadata, "spec": spec}
    assert index_config(parse_resource(document)).bootstrap_from == peer


def router_config(args):
    """What the router in the index's process makes of the command line; raises its RouterConfigError."""
    command = click.Command("router", params=list(router_front.options()))
    values = command.make_context("router", list(args)).params
    return RouterConfig.parse(settings_of(values, "router-"))


def test_the_router_takes_its_command_line():
    (everything,) = [each.values[0] for each in resources("PrefixIndex") if each.id.startswith("index-everything")]
    config = router_config(router_args(everything.spec.router))
    assert config == RouterConfig(
        policy="least_request",
        prefill_weight=0.25,
        decode_weight=0.1,
        tier_weights={"GPU": 1, "CPU": 0.6, "STORAGE": 0.2},
        speculative_ttl_s=1.5,
        session_affinity="header:X-Session",
        max_requests=100,
        max_queued=50,
        max_endpoint_requests=20,
        max_endpoint_queued=10,
        first_byte_timeout_s=300,
        idle_timeout_s=30,
        health_timeout_s=1,
        attempts=2,
        access_log=True,
    )


def test_the_defaults_of_the_resource_are_those_of_the_router():
    assert router_config(router_args(Router())) == RouterConfig()
    assert router_config(_all_settings(Router())) == RouterConfig()


def _all_settings(router):
    return [part for pair in router_settings(router).items() for part in pair]


BOUNDED = {
    "stale_after": "stale_after_s",
    "replay_timeout": "replay_timeout_s",
    "audit_interval": "audit_interval_s",
}


def bounds_of(model, field):
    """The limits of a duration of a resource, in seconds."""
    (bounds,) = [each for each in model.model_fields[field].metadata if isinstance(each, DurationBounds)]
    return duration_seconds(bounds.least), duration_seconds(bounds.most)


def takes(validate, seconds):
    try:
        validate(seconds)
    except (ConfigError, EngineConfigError):
        return False
    return True


@pytest.mark.parametrize(("field", "flag"), BOUNDED.items())
def test_durations_have_the_bounds_of_the_flags(field, flag):
    """Both ends are taken by the flag, and the flag refuses what lies beyond the upper end."""
    least, most = bounds_of(Sync, field)

    def validate(seconds):
        IndexerConfig.parse({"discover": "kubernetes", flag: seconds})

    assert takes(validate, least)
    assert takes(validate, most)
    assert not takes(validate, most + 1)


def test_the_termination_grace_has_the_bounds_of_the_drain_timeout():
    def validate(seconds):
        build_config({"mock_drain_timeout": seconds})

    _, most = bounds_of(MockEngineSpec, "termination_grace")
    assert takes(validate, most)
    assert not takes(validate, most + 1)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs(structural_schema(PrefixIndexSpec)))
def test_whatever_index_is_accepted_its_container_takes_flags_and_publishers(spec):
    document = {"apiVersion": names.API_VERSION, "kind": "PrefixIndex", "metadata": {"name": "a"}, "spec": spec}
    try:
        index = parse_resource(document)
    except InvalidSpecError:
        return
    index_config(index)
    for obj in build_objects(index, Images()):
        if obj["kind"] == "ConfigMap":
            rows = parse_publishers(obj["data"]["publishers.yaml"], "file")
            assert len(rows) == len(index.spec.publishers)


def test_what_is_made_is_watched_and_what_is_watched_is_made():
    plurals = set()
    for kind in ("MockEngine", "PrefixIndex"):
        for parameter in resources(kind):
            for obj in build_objects(parameter.values[0], Images()):
                group, _, version = obj["apiVersion"].rpartition("/")
                plural = {"NetworkPolicy": "networkpolicies"}.get(obj["kind"], obj["kind"].lower() + "s")
                plurals.add((group, version, plural))
    assert plurals == set(CHILD_KINDS)


@pytest.mark.parametrize("resource", [*resources("MockEngine"), *resources("PrefixIndex")])
def test_every_pod_passes_the_restricted_standard(resource):
    workload = next(o for o in build_objects(resource, Images()) if o["kind"] in ("Deployment", "StatefulSet"))
    pod = workload["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "hostPort" not in str(container["ports"])
    for volume in pod["volumes"]:
        assert set(volume) - {"name"} <= {"configMap", "emptyDir", "persistentVolumeClaim", "secret"}
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert workload["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_only_the_index_reaches_the_event_ports():
    (parameter,) = [p for p in resources("MockEngine") if "large" in p.id]
    policy = next(o for o in build_objects(parameter.values[0], Images()) if o["kind"] == "NetworkPolicy")
    http, events = policy["spec"]["ingress"]
    assert http == {"ports": [{"port": 8000, "protocol": "TCP"}]}
    assert events["ports"] == [
        {"port": 5557, "protocol": "TCP", "endPort": 5558},
        {"port": 5657, "protocol": "TCP", "endPort": 5658},
    ]
    assert events["from"] == [
        {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prefix-index"}}}
    ]


def picker_front_of(args):
    """The values of the picker's flags in the index's process; raises if the index does not know a flag."""
    command = click.Command("picker", params=list(picker_front.options()))
    values = command.make_context("picker", list(args)).params
    return values, RouterConfig.parse(settings_of(values, "epp-"))


def picker_of(name):
    resource = parse_resource(
        yaml.safe_load((ROOT / "operator/tests/golden" / name / "input.yaml").read_text().split("---")[0])
    )
    return resource, picker_args(resource.spec.picker, pool_name(resource), resource.namespace)


def test_the_picker_takes_its_command_line():
    _, args = picker_of("picker-creates-pool")
    values, config = picker_front_of(args)
    assert [values[name] for name in ("epp_port", "epp_health_port", "epp_metrics_port")] == [9002, 9003, 9090]
    assert (values["epp_pool_name"], values["epp_pool_namespace"]) == ("llama", "lab")
    assert values["epp_single_address"]
    assert str(values["epp_cert_path"]) == CERTIFICATE_DIR
    assert (config.policy, config.prefill_weight, config.attempts) == ("least_request", 0.25, 2)
    assert (config.session_affinity, config.speculative_ttl_s, config.max_endpoint_requests) == ("user", 2.0, 20)
    _, plain = picker_of("picker-for-a-pool")
    assert not picker_front_of(plain)[0]["epp_secure_serving"]


def test_the_defaults_of_the_resource_are_those_of_the_picker():
    assert picker_front_of(picker_args(EndpointPicker(), "p", "n"))[1] == picker_front_of([])[1]
    every = [part for pair in picker_settings(EndpointPicker()).items() for part in pair]
    assert picker_front_of(every)[1] == picker_front_of([])[1]


def test_the_index_follows_the_pods_of_the_pool():
    made, _ = picker_of("picker-creates-pool")
    assert "--pool" not in index_args(made)
    assert "kvsync.dev/engine=llama" in index_args(made)
    other, _ = picker_of("picker-for-a-pool")
    args = index_args(other)
    assert "--selector" not in args
    assert args[args.index("--pool") + 1] == "main"


def test_a_pool_that_the_operator_makes_is_accepted_by_the_index():
    resource, _ = picker_of("picker-creates-pool")
    assert read_pool(build_pool(resource)) == PoolSpec("kvsync.dev/engine=llama", (8000, 8001))
