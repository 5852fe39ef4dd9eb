"""Experiment documents: read, checked against the CRDs of the pinned Chaos Mesh, and against what its webhooks refuse.

The API server prunes fields that a CRD does not have, so a misspelt one is silently ignored. Here every object of the
schema is closed first. The CRDs are read from the folder of the Go module; nothing of Chaos Mesh is kept here.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import yaml

from kvsync_testkit.chaos.errors import ManifestError

Document = dict[str, Any]

_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+")
_RATE = re.compile(r"[0-9]+(bit|kbit|mbit|gbit|tbit)")
_SPECS = {"NetworkChaos": "networkChaos", "PodChaos": "podChaos", "StressChaos": "stressChaos"}


def read_documents(folder: Path) -> Iterator[tuple[str, Document]]:
    """Return (file name, document) of every experiment in a folder."""
    for file in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document:
                yield file.name, document


def experiments(folder: Path) -> dict[str, Document]:
    """Return the documents that the runner applies, by the name of the fault. Schedules are not among them."""
    return {doc["metadata"]["name"]: doc for _, doc in read_documents(folder) if doc["kind"] != "Schedule"}


def read_schemas(folder: Path) -> dict[str, Document]:
    """Return the closed schemas of the CRDs in a folder, by kind."""
    found = {}
    for file in sorted(folder.glob("*.yaml")):
        for crd in yaml.safe_load_all(file.read_text()):
            if crd and crd.get("kind") == "CustomResourceDefinition":
                schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
                found[crd["spec"]["names"]["kind"]] = _closed(schema)
    return found


def _closed(schema: Any) -> Any:  # noqa: ANN401
    """Return the schema with `additionalProperties: false` in every object that lists its fields."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _closed(value) for key, value in schema.items()}
    listed = isinstance(found.get("properties"), dict) and found.get("type") == "object"
    if listed and "additionalProperties" not in found and not found.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def check_schema(document: Document, schemas: Mapping[str, Document]) -> None:
    """Raise ManifestError if the CRD of the pinned release does not have a field, or does not allow its value."""
    schema = schemas.get(document["kind"])
    if schema is None:
        raise ManifestError(f"the pinned Chaos Mesh has no {document['kind']}")
    body = {key: value for key, value in document.items() if key != "metadata"}
    schema = schema | {"properties": {k: v for k, v in schema["properties"].items() if k != "metadata"}}
    for error in jsonschema.Draft7Validator(schema).iter_errors(body):
        where = ".".join(str(part) for part in error.absolute_path)
        raise ManifestError(f"{document['metadata']['name']}: {where}: {error.message}")


def check_rules(document: Document) -> None:
    """Raise ManifestError for what the webhooks of Chaos Mesh refuse, and for what they accept and do differently."""
    name, spec, kind = document["metadata"]["name"], document["spec"], document["kind"]
    if kind == "Schedule":
        kind = str(spec["type"])
        if _SPECS.get(kind) not in spec:
            raise ManifestError(f"{name}: a schedule of type {kind} needs the field {_SPECS.get(kind)}")
        spec = spec[_SPECS[kind]]
    problems = [*_check_common(spec), *_CHECKS.get(kind, _nothing)(spec)]
    if problems:
        raise ManifestError(f"{name}: {'; '.join(problems)}")


def _nothing(_spec: Document) -> list[str]:
    return []


def _check_common(spec: Document) -> Iterator[str]:
    if not spec.get("selector", {}).get("namespaces"):
        yield "selector.namespaces is empty, so that any pod of the cluster may be chosen"
    if not spec.get("selector", {}).get("labelSelectors"):
        yield "selector.labelSelectors is empty"
    for field in ("duration", "timeOffset"):
        value = spec.get(field)
        if value is not None and not _DURATION.fullmatch(str(value).lstrip("-")):
            yield f"{field} '{value}' is not a duration"
    if spec.get("mode") in ("fixed", "fixed-percent", "random-max-percent") and not spec.get("value"):
        yield f"mode {spec['mode']} needs a value"


def _check_network(spec: Document) -> Iterator[str]:
    action = spec["action"]
    if action in ("delay", "loss", "corrupt", "duplicate"):
        settings = spec.get(action)
        if not settings:
            yield f"action {action} needs the field {action}"
        else:
            yield from _check_percent_strings(action, settings)
            for field in ("latency", "jitter"):
                if field in settings and not _DURATION.fullmatch(str(settings[field])):
                    yield f"{action}.{field} '{settings[field]}' is not a duration"
    if action == "bandwidth":
        yield from _check_bandwidth(spec.get("bandwidth") or {})
    yield from _check_external(spec)


def _check_percent_strings(action: str, settings: Document) -> Iterator[str]:
    for field in (action, "correlation"):
        value = settings.get(field)
        if value is None and field == "correlation":
            yield f"{action}.correlation is not set"
        elif value is not None:
            try:
                good = isinstance(value, str) and 0.0 <= float(value) <= 100.0
            except ValueError:
                good = False
            if not good:
                yield f"{action}.{field} must be a percentage as a string, not {value!r}"


def _check_bandwidth(settings: Document) -> Iterator[str]:
    rate = str(settings.get("rate", ""))
    if not _RATE.fullmatch(rate):
        yield f"bandwidth.rate '{rate}' must be in bits, as in 1mbit (1mbps is a megabyte a second)"
    for field in ("limit", "buffer"):
        if not isinstance(settings.get(field), int) or settings[field] < 1:
            yield f"bandwidth.{field} must be at least 1"


def _check_external(spec: Document) -> Iterator[str]:
    targets = spec.get("externalTargets") or []
    if targets and "target" in spec:
        yield "a port is blocked by externalTargets without target"
    for target in targets:
        address, _, port = str(target).partition(":")
        try:
            network = ipaddress.IPv4Network(address)
        except ValueError:
            yield f"external target '{target}' is not an IPv4 address or CIDR with a port"
            continue
        if network.prefixlen == 0:
            yield f"external target '{target}' is every address, which Chaos Mesh refuses"
        if port and not (port.isdigit() and 0 < int(port) < 65536):
            yield f"external target '{target}' has no valid port"
    if spec.get("direction", "to") != "to" and not targets and "target" not in spec:
        yield f"direction {spec['direction']} needs a target"


def _check_pod(spec: Document) -> Iterator[str]:
    if spec["action"] == "container-kill" and not spec.get("containerNames"):
        yield "container-kill needs containerNames"


def _check_stress(spec: Document) -> Iterator[str]:
    stressors = spec.get("stressors") or {}
    if not stressors:
        yield "no stressor"
    for name, stressor in stressors.items():
        if not isinstance(stressor.get("workers"), int) or stressor["workers"] < 1:
            yield f"stressors.{name}.workers must be at least 1"


_CHECKS = {"NetworkChaos": _check_network, "PodChaos": _check_pod, "StressChaos": _check_stress}


def selects(document: Document, labels: Mapping[str, str]) -> bool:
    """Return whether the selector of an experiment matches the labels of a pod."""
    spec = document["spec"]
    if document["kind"] == "Schedule":
        spec = spec[_SPECS[str(spec["type"])]]
    wanted: Mapping[str, str] = spec["selector"]["labelSelectors"]
    return wanted.items() <= labels.items()
