"""Builds the objects of a PrefixIndex.

They are a workload, Services, Roles and RoleBindings, a NetworkPolicy, a PodDisruptionBudget, a ServiceAccount, and a
ConfigMap if publishers are listed. The workload is a Deployment. With a snapshot on a claim it is a StatefulSet, so
that each pod has its own volume.
"""

from typing import Any

import yaml

from kvsync_operator import names
from kvsync_operator.models.common import duration_seconds
from kvsync_operator.models.document import Resource
from kvsync_operator.models.prefixindex import IndexApi, PrefixIndexSpec, Selector, Snapshot, Tokenizer
from kvsync_operator.objects.images import Images
from kvsync_operator.objects.meta import KubeObject, build_object, instance_labels, selector_labels
from kvsync_operator.objects.picker import (
    PICKER_CONTAINER_PORTS,
    build_picker_service,
    certificate_volume,
    picker_args,
    pool_name,
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
from kvsync_operator.objects.routing import router_args
from kvsync_operator.objects.shared import (
    build_config_map,
    build_disruption_budget,
    build_ingress_policy,
    build_service,
    build_service_account,
    service_port,
)

PUBLISHERS_FILE = "publishers.yaml"
SNAPSHOT_DIR = "/var/lib/kvsync"
TOKENIZERS_DIR = "/tokenizers"
API_TOKEN_DIR = "/etc/kvsync-api-token"  # noqa: S105  a folder
API_TLS_DIR = "/etc/kvsync-api-tls"
_DEFAULT_RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "4Gi"}}
_GRACE_S = 30

Index = Resource[PrefixIndexSpec]


def uses_claim(spec: PrefixIndexSpec) -> bool:
    """Return whether each index pod has a PersistentVolumeClaim."""
    return spec.snapshot is not None and spec.snapshot.volume == "PersistentVolumeClaim"


def watched_namespaces(index: Index) -> list[str]:
    """Return the namespaces in which engine pods are selected: those of the spec, by default that of the index."""
    return sorted(index.spec.namespaces) or [index.namespace]


def selector_argument(selector: Selector) -> str:
    """Return `selector` in the form of an API query, `a=b,c in (d,e),!f`, in a stable order."""
    parts = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for item in selector.match_expressions:
        match item.operator:
            case "In":
                parts.append(f"{item.key} in ({','.join(item.values)})")
            case "NotIn":
                parts.append(f"{item.key} notin ({','.join(item.values)})")
            case "Exists":
                parts.append(item.key)
            case "DoesNotExist":
                parts.append(f"!{item.key}")
    return ",".join(parts)


def build_prefix_index(index: Index, images: Images) -> list[KubeObject]:
    """Build every object of `index`, in the order in which they should be applied."""
    name = names.index_name(index.name)
    ports = [service_port("http", names.INDEX_PORT)]
    router = index.spec.router
    objects = [build_service_account(index, name), *_watch_roles(index)]
    if index.spec.publishers:
        objects.append(build_config_map(index, name, {PUBLISHERS_FILE: _publishers_file(index.spec)}))
    objects.append(build_service(index, name, ports))
    if router is not None:
        objects.append(build_service(index, names.router_name(index.name), [service_port("router", router.port)]))
    if index.spec.picker is not None:
        objects.append(build_picker_service(index))
    open_ports = [
        names.INDEX_PORT,
        *([router.port] if router else []),
        *(names.PICKER_PORTS if index.spec.picker else []),
    ]
    objects.append(
        build_ingress_policy(index, name, [{"ports": [{"port": port, "protocol": "TCP"} for port in open_ports]}])
    )
    objects += [build_disruption_budget(index, name), _build_workload(index, images)]
    return objects


def _publishers_file(spec: PrefixIndexSpec) -> str:
    rows = [publisher.to_row() for publisher in spec.publishers]
    return yaml.safe_dump(rows, sort_keys=False)


def _watch_roles(index: Index) -> list[KubeObject]:
    """Build a Role and a RoleBinding per watched namespace, which permit to read pods and the pool only."""
    objects: list[KubeObject] = []
    account = {"kind": "ServiceAccount", "name": names.index_name(index.name), "namespace": index.namespace}
    for namespace in watched_namespaces(index):
        name = names.watch_role_name(index.name, index.namespace, namespace)
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}, *_pool_rules(index)]
        binding = {
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [account],
        }
        api = "rbac.authorization.k8s.io/v1"
        objects.append(build_object(index, api, "Role", name, {"rules": rules}, namespace))
        objects.append(build_object(index, api, "RoleBinding", name, binding, namespace))
    return objects


def _pool_rules(index: Index) -> list[dict[str, Any]]:
    """Build the rule for the pool of the picker; a watch on one object may be granted by its name."""
    if index.spec.picker is None:
        return []
    return [
        {
            "apiGroups": [names.POOL_GROUP],
            "resources": ["inferencepools"],
            "resourceNames": [pool_name(index)],
            "verbs": ["get", "list", "watch"],
        }
    ]


def index_args(index: Index) -> list[str]:
    """Return the command line of `kvsync-indexer`."""
    spec = index.spec
    args = ["--port", str(names.INDEX_PORT), "--core", spec.core]
    args += ["--discover", "kubernetes", *_pods_argument(index)]
    for namespace in watched_namespaces(index):
        args += ["--namespace", namespace]
    args += ["--stale-after", _seconds(spec.sync.stale_after), "--replay-timeout", _seconds(spec.sync.replay_timeout)]
    if duration_seconds(spec.sync.audit_interval) > 0:
        args += ["--audit-interval", _seconds(spec.sync.audit_interval)]
    if spec.publishers:
        args += ["--publishers", f"{CONFIG_DIR}/{PUBLISHERS_FILE}"]
    if spec.snapshot is not None:
        args += ["--snapshot-dir", SNAPSHOT_DIR]
    for number, tokenizer in enumerate(spec.tokenizers):
        args += ["--tokenizer", _tokenizer(tokenizer, number)]
    if spec.replicas > 1 and spec.api.tls_secret_name is None:  # a pod cannot verify the certificate of another one
        args += ["--bootstrap-from", f"http://{names.index_name(index.name)}.{index.namespace}.svc:{names.INDEX_PORT}"]
    args += _api_args(spec.api)
    if spec.curve is not None:
        args += ["--curve-secret-key-file", f"{CURVE_DIR}/secret-key"]
        if spec.curve.server_key is not None:
            args += ["--curve-server-key", spec.curve.server_key.replace("$", "$$")]  # Kubernetes reads $$ as $
    if spec.router is not None:
        args += router_args(spec.router)
    if spec.picker is not None:
        args += picker_args(spec.picker, pool_name(index), index.namespace)
    return args


def _pods_argument(index: Index) -> list[str]:
    """Return the flag that says which pods are followed: those of a pool that somebody else made, or the selector's."""
    picker = index.spec.picker
    if picker is not None and picker.create_pool == "Disabled":
        return ["--pool", pool_name(index)]
    return ["--selector", selector_argument(index.spec.selector)]


def _tokenizer(tokenizer: Tokenizer, number: int) -> str:
    """Return the value of `--tokenizer`."""
    choice = tokenizer.source.lower()
    if tokenizer.source == "Files":
        choice = f"hf:{TOKENIZERS_DIR}/{number}" + (f"/{tokenizer.path}" if tokenizer.path else "")
    return choice if tokenizer.model == "*" else f"{tokenizer.model}={choice}"


def _seconds(duration: str) -> str:
    return f"{duration_seconds(duration):g}"


def _build_workload(index: Index, images: Images) -> KubeObject:
    name = names.index_name(index.name)
    spec: dict[str, Any] = {
        "replicas": index.spec.replicas,
        "revisionHistoryLimit": 3,
        "selector": {"matchLabels": selector_labels(index)},
        "template": build_pod_template(_pod_parts(index, images), index.spec.template),
    }
    if index.spec.snapshot is None or not uses_claim(index.spec):
        spec["progressDeadlineSeconds"] = 300
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        return build_object(index, "apps/v1", "Deployment", name, {"spec": spec})
    spec["serviceName"] = name
    spec["podManagementPolicy"] = "Parallel"
    spec["updateStrategy"] = {"type": "RollingUpdate"}
    spec["persistentVolumeClaimRetentionPolicy"] = {"whenDeleted": "Delete", "whenScaled": "Delete"}
    spec["volumeClaimTemplates"] = [_claim(index.spec.snapshot)]
    return build_object(index, "apps/v1", "StatefulSet", name, {"spec": spec})


def _claim(snapshot: Snapshot) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": snapshot.size}},
    }
    if snapshot.storage_class_name is not None:
        spec["storageClassName"] = snapshot.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "snapshot"}, "spec": spec}


def _pod_parts(index: Index, images: Images) -> PodParts:
    spec = index.spec
    name = names.index_name(index.name)
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    if spec.publishers:
        volumes.append({"name": "config", "configMap": {"name": name, "defaultMode": 0o444}})
        mounts.append({"name": "config", "mountPath": CONFIG_DIR, "readOnly": True})
    if spec.snapshot is not None:
        mounts.append({"name": "snapshot", "mountPath": SNAPSHOT_DIR})
        if not uses_claim(spec):
            volumes.append({"name": "snapshot", "emptyDir": {"sizeLimit": spec.snapshot.size}})
    for number, tokenizer in enumerate(spec.tokenizers):
        if tokenizer.claim_name is not None:
            claim = {"claimName": tokenizer.claim_name, "readOnly": True}
            volumes.append({"name": f"tokenizer-{number}", "persistentVolumeClaim": claim})
            mounts.append({"name": f"tokenizer-{number}", "mountPath": f"{TOKENIZERS_DIR}/{number}", "readOnly": True})
    secrets = _api_secrets(spec.api)
    if spec.curve is not None:
        secrets.append(("curve", spec.curve.secret_name, CURVE_DIR))
    for volume, mount in (secret_volume(*secret) for secret in secrets):
        volumes.append(volume)
        mounts.append(mount)
    ports = [{"name": "http", "containerPort": names.INDEX_PORT, "protocol": "TCP"}]
    if spec.router is not None:
        ports.append({"name": "router", "containerPort": spec.router.port, "protocol": "TCP"})
    if spec.picker is not None:
        ports += PICKER_CONTAINER_PORTS
        if spec.picker.certificate_secret_name is not None:
            volume, mount = certificate_volume(spec.picker.certificate_secret_name)
            volumes.append(volume)
            mounts.append(mount)
    scheme = "HTTPS" if spec.api.tls_secret_name is not None else None
    return PodParts(
        container="index",
        image=spec.template.image or images.indexer,
        args=index_args(index),
        ports=ports,
        probes={
            "startupProbe": startup_probe("/healthz", "http", scheme=scheme),
            "readinessProbe": http_probe("/readyz", "http", period_s=3, failures=2, scheme=scheme),
            "livenessProbe": http_probe("/healthz", "http", period_s=10, failures=3, timeout_s=5, scheme=scheme),
        },
        service_account=name,
        labels=instance_labels(index),
        annotations={
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(names.INDEX_PORT),
            "prometheus.io/path": "/metrics",
            **({} if scheme is None else {"prometheus.io/scheme": scheme.lower()}),
        },
        default_resources=_DEFAULT_RESOURCES,
        grace_s=_GRACE_S,
        api_access=True,
        volumes=volumes,
        mounts=mounts,
    )


def _api_args(api: IndexApi) -> list[str]:
    args = [] if api.token_secret_name is None else ["--token-file", f"{API_TOKEN_DIR}/token"]
    if api.tls_secret_name is not None:
        args += ["--tls-cert", f"{API_TLS_DIR}/tls.crt", "--tls-key", f"{API_TLS_DIR}/tls.key"]
    return args


def _api_secrets(api: IndexApi) -> list[tuple[str, str, str]]:
    """Return (volume, Secret, folder) of the Secrets of the HTTP API."""
    secrets = (("api-token", api.token_secret_name, API_TOKEN_DIR), ("api-tls", api.tls_secret_name, API_TLS_DIR))
    return [(volume, secret, folder) for volume, secret, folder in secrets if secret is not None]
