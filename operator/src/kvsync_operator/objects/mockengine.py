"""Builds the objects of a MockEngine.

They are a Deployment, a headless Service, a ConfigMap, a NetworkPolicy, a PodDisruptionBudget and a ServiceAccount.
"""

import json
from typing import Any

from kvsync_operator import names
from kvsync_operator.models.common import duration_seconds
from kvsync_operator.models.document import Resource
from kvsync_operator.models.mockengine import EngineCurve, HostOffload, Latency, MockEngineSpec
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import (
    KubeObject,
    build_object,
    hash_of,
    index_labels,
    instance_labels,
    selector_labels,
)
from kvsync_operator.objects.pod import (
    CONFIG_DIR,
    CURVE_DIR,
    PodParts,
    build_pod_template,
    http_probe,
    secret_volume,
    startup_probe,
)
from kvsync_operator.objects.shared import (
    build_config_map,
    build_disruption_budget,
    build_ingress_policy,
    build_service,
    build_service_account,
)

CONFIG_FILE = "config.yaml"
FAULTS_FILE = "faults.yaml"
_DEFAULT_RESOURCES = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}

Engine = Resource[MockEngineSpec]


def build_mock_engine(engine: Engine, images: Images) -> list[KubeObject]:
    """Build every object of `engine`, in the order in which they should be applied."""
    name = names.engine_name(engine.name)
    config = build_config_map(engine, name, _files(engine.spec))
    return [
        build_service_account(engine, name),
        config,
        build_service(engine, name, _service_ports(engine.spec), headless=True),
        build_ingress_policy(engine, name, _ingress(engine.spec)),
        build_disruption_budget(engine, name),
        _build_deployment(engine, images, hash_of(config["data"])),
    ]


def _files(spec: MockEngineSpec) -> dict[str, str]:
    files = {CONFIG_FILE: config_text(spec)}
    if spec.faults:
        plan = {"seed": spec.seed, "faults": [rule.to_rule() for rule in spec.faults]}
        files[FAULTS_FILE] = json.dumps(plan, indent=2) + "\n"
    return files


def config_text(spec: MockEngineSpec) -> str:
    """Return the text of the `--config` file: JSON, which is valid YAML and is written much faster."""
    return json.dumps(mock_config(spec), indent=2) + "\n"


def mock_config(spec: MockEngineSpec) -> dict[str, Any]:
    """Return the content of the `--config` file: the options of `kvsync-mockpod` as keys."""
    events, latency = spec.events, spec.latency
    config: dict[str, Any] = {
        "model": spec.model.name,
        "served-model-name": [spec.model.name],
        "port": names.HTTP_PORT,
        "block-size": spec.cache.block_size,
        "num-gpu-blocks-override": spec.cache.num_gpu_blocks,
        "prefix-caching-hash-algo": spec.cache.hash_algorithm,
        "max-num-seqs": spec.scheduler.max_num_seqs,
        "max-num-batched-tokens": spec.scheduler.max_num_batched_tokens,
        "max-model-len": spec.scheduler.max_model_len,
        "scheduling-policy": spec.scheduler.policy,
        "data-parallel-size": events.data_parallel_size,
        "enable-prompt-tokens-details": True,
        "kv-events-config": {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": f"tcp://*:{events.port}",
            "replay_endpoint": f"tcp://*:{events.replay_port}",
            "buffer_steps": events.buffer_steps,
            "topic": events.topic,
        },
        "mock-latency": _latency(latency),
        "mock-latency-jitter": latency.jitter_percent / 100,
        "mock-time-scale": float(latency.time_scale),
        "mock-seed": spec.seed,
        "mock-wire-version": events.wire_version,
        "mock-debug": spec.debug == "Enabled",
        "mock-drain-timeout": max(1.0, duration_seconds(spec.termination_grace) - 5),
    }
    if spec.cache.hash_seed is not None:
        config["mock-hash-seed"] = spec.cache.hash_seed
    if spec.model.loras:
        config["lora-modules"] = [{"name": lora.name, "path": lora.path or lora.name} for lora in spec.model.loras]
    if spec.cache.host_offload is not None:
        config |= _tiers(spec.cache.host_offload)
    return config


def _latency(latency: Latency) -> str:
    if latency.custom is None:
        return latency.profile or "none"
    custom = latency.custom
    coefficients_us = {
        "prefill_us": custom.prefill_base_us,
        "prefill_token_us": custom.prefill_per_token_ns / 1e3,
        "prefill_token2_us": custom.prefill_per_token_squared_ps / 1e6,
        "decode_us": custom.decode_base_us,
        "decode_seq_us": custom.decode_per_sequence_ns / 1e3,
        "kv_token_us": custom.decode_per_kv_token_ps / 1e6,
    }
    return json.dumps({name: value for name, value in coefficients_us.items() if value})


def _tiers(offload: HostOffload) -> dict[str, Any]:
    tiers: dict[str, Any] = {
        "mock-host-blocks": offload.blocks,
        "mock-host-bandwidth": offload.bandwidth_megabytes_per_second * 1e6,
        "mock-offload-batch-blocks": offload.batch_blocks,
        "mock-offload-concurrency": offload.max_concurrent_batches,
        "mock-tier-transfers": offload.transfers.lower(),
        "mock-tier-events": {"Full": "full", "HashOnly": "hash_only"}[offload.event_form],
    }
    if offload.block_kibibytes is not None:
        tiers["mock-block-bytes"] = offload.block_kibibytes * 1024
    if offload.disk is not None:
        tiers["mock-disk-blocks"] = offload.disk.blocks
        tiers["mock-disk-bandwidth"] = offload.disk.bandwidth_megabytes_per_second * 1e6
    return tiers


def _build_deployment(engine: Engine, images: Images, config_hash: str) -> KubeObject:
    name = names.engine_name(engine.name)
    spec = {
        "replicas": engine.spec.replicas,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": 300,
        "selector": {"matchLabels": selector_labels(engine)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
        "template": build_pod_template(_pod_parts(engine, images, config_hash), engine.spec.template),
    }
    return build_object(engine, "apps/v1", "Deployment", name, {"spec": spec})


def _pod_parts(engine: Engine, images: Images, config_hash: str) -> PodParts:
    spec = engine.spec
    name = names.engine_name(engine.name)
    volumes: list[dict[str, Any]] = [{"name": "config", "configMap": {"name": name, "defaultMode": 0o444}}]
    mounts: list[dict[str, Any]] = [{"name": "config", "mountPath": CONFIG_DIR, "readOnly": True}]
    annotations: dict[str, str] = {}
    curve = spec.events.curve
    if curve is not None:
        volume, mount = secret_volume("curve", curve.secret_name, CURVE_DIR)
        volumes.append(volume)
        mounts.append(mount)
        annotations[names.ANNOTATION_CURVE_KEY] = curve.public_key
    return PodParts(
        container="engine",
        image=spec.template.image or images.mockpod,
        args=[
            *("--config", f"{CONFIG_DIR}/{CONFIG_FILE}"),
            *(("--mock-faults", f"{CONFIG_DIR}/{FAULTS_FILE}") if spec.faults else ()),
            *_curve_args(curve),
        ],
        ports=[
            {"name": port["name"], "containerPort": port["port"], "protocol": "TCP"} for port in _service_ports(spec)
        ],
        probes={
            "startupProbe": startup_probe("/health", "http"),
            "readinessProbe": http_probe("/health", "http", period_s=5, failures=2),
            "livenessProbe": http_probe("/health", "http", period_s=10, failures=3, timeout_s=5),
        },
        service_account=name,
        labels={
            **instance_labels(engine),
            names.LABEL_KV_EVENTS: "true",
            names.LABEL_AIBRIX_MODEL: names.label_value(spec.model.name),
            names.LABEL_AIBRIX_PORT: str(names.HTTP_PORT),
            names.LABEL_AIBRIX_EVENTS: "true",
            names.LABEL_LLMD_SERVING: "true",
        },
        annotations={
            names.ANNOTATION_MODEL: spec.model.name,
            names.ANNOTATION_HTTP_PORT: str(names.HTTP_PORT),
            names.ANNOTATION_EVENTS_PORT: str(spec.events.port),
            names.ANNOTATION_REPLAY_PORT: str(spec.events.replay_port),
            names.ANNOTATION_RANKS: str(spec.events.data_parallel_size),
            names.ANNOTATION_TOPIC: spec.events.topic,
            names.ANNOTATION_DEBUG: "true" if spec.debug == "Enabled" else "false",
            names.ANNOTATION_CONFIG_HASH: config_hash,
            **annotations,
        },
        default_resources=_DEFAULT_RESOURCES,
        grace_s=int(duration_seconds(spec.termination_grace)),
        volumes=volumes,
        mounts=mounts,
    )


def _curve_args(curve: EngineCurve | None) -> list[str]:
    if curve is None:
        return []
    args = ["--mock-curve-key", f"{CURVE_DIR}/secret-key"]
    return [*args, "--mock-curve-clients", f"{CURVE_DIR}/clients"] if curve.admission == "Known" else args


def _service_ports(spec: MockEngineSpec) -> list[dict[str, Any]]:
    """Return the HTTP port, and an event port and a replay port per rank."""
    ports = [_port("http", names.HTTP_PORT)]
    for rank in range(spec.events.data_parallel_size):
        ports.append(_port(f"events-{rank}" if rank else "events", spec.events.port + rank))
        ports.append(_port(f"replay-{rank}" if rank else "replay", spec.events.replay_port + rank))
    return ports


def _port(name: str, port: int) -> dict[str, Any]:
    return {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}


def _ingress(spec: MockEngineSpec) -> list[dict[str, Any]]:
    """Admit everyone to HTTP, and only index pods, of any namespace, to the event and replay ports."""
    events, ranks = spec.events, spec.events.data_parallel_size
    index_pods = {"namespaceSelector": {}, "podSelector": {"matchLabels": index_labels()}}
    return [
        {"ports": [{"port": names.HTTP_PORT, "protocol": "TCP"}]},
        {"from": [index_pods], "ports": [_range(events.port, ranks), _range(events.replay_port, ranks)]},
    ]


def _range(first: int, count: int) -> dict[str, Any]:
    port: dict[str, Any] = {"port": first, "protocol": "TCP"}
    return port if count == 1 else {**port, "endPort": first + count - 1}
