"""Builds what the endpoint picker of a PrefixIndex adds: flags, ports, a Service and, if wanted, the InferencePool."""

from typing import Any

from kvsync_operator import names
from kvsync_operator.models.document import Resource
from kvsync_operator.models.endpointpicker import EndpointPicker
from kvsync_operator.models.prefixindex import PrefixIndexSpec
from kvsync_operator.objects.meta import KubeObject, build_object
from kvsync_operator.objects.routing import changed_settings, placing_settings
from kvsync_operator.objects.shared import build_service, service_port

CERTIFICATE_DIR = "/etc/kvsync-epp"
_PORT_NAMES = dict(zip(("epp", "epp-health", "epp-metrics"), names.PICKER_PORTS, strict=True))
PICKER_CONTAINER_PORTS = [
    {"name": name, "containerPort": port, "protocol": "TCP"} for name, port in _PORT_NAMES.items()
]

Index = Resource[PrefixIndexSpec]


def pool_name(index: Index) -> str:
    """Return the name of the InferencePool that the picker of `index` serves."""
    picker = index.spec.picker
    return index.name if picker is None or picker.pool is None else picker.pool


def picker_settings(picker: EndpointPicker) -> dict[str, str]:
    """Return every flag of the picker that has a value, with the value that the resource asks for."""
    return {**placing_settings("--epp-", picker), "--epp-attempts": str(picker.attempts)}


def picker_args(picker: EndpointPicker, pool: str, namespace: str) -> list[str]:
    """Return the flags of `kvsync-indexer` that run a picker for `pool`. Settings at their defaults are left out."""
    flags = ("--epp-port", "--epp-health-port", "--epp-metrics-port")
    args = [part for flag, port in zip(flags, names.PICKER_PORTS, strict=True) for part in (flag, str(port))]
    args += ["--epp-pool-name", pool, "--epp-pool-namespace", namespace, "--epp-policy", picker.policy]
    args += changed_settings(picker_settings(picker), picker_settings(EndpointPicker()))
    if picker.addresses == "Single":
        args.append("--epp-single-address")
    if picker.tls == "Disabled":
        args.append("--no-epp-secure-serving")
    if picker.certificate_secret_name is not None:
        args += ["--epp-cert-path", CERTIFICATE_DIR]
    return args


def certificate_volume(secret: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build the volume of the Secret with the certificate of the picker, and its mount."""
    volume = {"name": "epp-certificate", "secret": {"secretName": secret, "defaultMode": 0o440}}
    return volume, {"name": "epp-certificate", "mountPath": CERTIFICATE_DIR, "readOnly": True}


def build_picker_service(index: Index) -> KubeObject:
    """Build the Service that an InferencePool refers to."""
    ports = [service_port(name, port) for name, port in _PORT_NAMES.items()]
    return build_service(index, names.picker_name(index.name), ports)


def build_pool(index: Index) -> KubeObject | None:
    """Build the InferencePool with the labels of the index's selector; None if the operator is not to make it."""
    picker = index.spec.picker
    if picker is None or picker.create_pool == "Disabled":
        return None
    spec = {
        "selector": {"matchLabels": dict(index.spec.selector.match_labels)},
        "targetPorts": [{"number": port} for port in picker.ports_of_pods],
        "endpointPickerRef": {
            "group": "",
            "kind": "Service",
            "name": names.picker_name(index.name),
            "port": {"number": names.PICKER_PORT},
            "failureMode": picker.failure_mode or "FailClose",
        },
    }
    return build_object(index, names.POOL_API_VERSION, names.POOL, pool_name(index), {"spec": spec})
