"""The CRDs are structural, bounded and up to date, and accept the same specs as the models.

The CEL rules are tested on a real API server in test/e2e; this module tests what JSON Schema can express.
"""

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from operator_specs import specs

from kvsync_operator import manifests
from kvsync_operator.crds import KINDS, build_crd
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.models import parse_resource

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "config" / "samples").glob("*.yaml"))


def schema_of(kind):
    return build_crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def walk(schema, path=""):
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from walk(schema[key], f"{path}[]")


def documents(file):
    return [document for document in yaml.safe_load_all(file.read_text()) if document]


def closed(schema):
    """Return `schema` as JSON Schema without the extensions of Kubernetes, in which unknown fields are errors."""
    result = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes")}
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": schema["pattern"]}]}
    if "properties" in schema:
        result["properties"] = {name: closed(child) for name, child in schema["properties"].items()}
        result["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = closed(schema[key])
    return result


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_schema_is_structural_and_bounded(kind):
    for path, schema in walk(schema_of(kind)):
        if path in ("", ".metadata"):
            continue
        assert not {"$ref", "anyOf", "allOf", "oneOf", "title", "const"} & set(schema), path
        assert "type" in schema or schema.get("x-kubernetes-int-or-string"), path
        if schema.get("type") == "string":
            bounded = {"maxLength", "enum", "format"} & set(schema)
            assert bounded, f"{path}: a string without a maximum"
        if schema.get("type") == "array":
            assert "maxItems" in schema, f"{path}: a list without a maximum"
            assert "x-kubernetes-list-type" in schema, path
        if "additionalProperties" in schema:
            assert "maxProperties" in schema, f"{path}: a map without a maximum"
        if schema.get("type") == "integer":
            assert "minimum" in schema, path
            assert "maximum" in schema or ".status." in path or path.endswith("observedGeneration"), path
        assert schema.get("type") != "number", f"{path}: no floats"
        assert schema.get("type") != "boolean" or path.endswith(".enabled"), f"{path}: an enum can be extended"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_field_is_documented(kind):
    for path, schema in walk(schema_of(kind)):
        if path.count(".") and not path.endswith("[]") and path.split(".")[1] in ("spec", "status"):
            assert schema.get("description"), path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_subresources_columns_and_status(kind):
    version = build_crd(kind)["spec"]["versions"][0]
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"
    columns = [column["name"] for column in version["additionalPrinterColumns"] if not column.get("priority")]
    assert columns[0] == "Ready"
    assert {"Desired", "Age"} <= set(columns)
    assert next(c for c in version["additionalPrinterColumns"] if c["name"] == "Message")["priority"] == 1
    status = schema_of(kind)["properties"]["status"]
    assert next(iter(status["properties"])) == "conditions"
    assert status["properties"]["conditions"]["x-kubernetes-list-map-keys"] == ["type"]
    assert "phase" not in status["properties"]


def test_generated_files_are_fresh():
    stale = [path for path, text in manifests.generate().items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make manifests`"


def test_check_names_what_is_stale(tmp_path, capsys):
    assert manifests.main([str(tmp_path)]) == 0
    assert manifests.main([str(tmp_path), "--check"]) == 0
    (tmp_path / "docs/reference/mockengine.md").write_text("old")
    assert manifests.main([str(tmp_path), "--check"]) == 1
    assert "docs/reference/mockengine.md is stale" in capsys.readouterr().err
    assert manifests.main(["--wrong"]) == 2


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)
def test_samples_are_valid(file):
    for document in documents(file):
        kind = next(kind for kind in KINDS if kind.kind == document["kind"])
        jsonschema.validate(document["spec"], closed(schema_of(kind)["properties"]["spec"]))
        parse_resource(document)


def test_there_is_a_sample_for_each_use():
    names = {file.stem for file in SAMPLES}
    assert {"single", "three-pods", "two-models", "offload", "faults", "index-snapshot", "gateway"} <= names


def refusal(document):
    try:
        parse_resource(document)
    except InvalidSpecError as error:
        return error
    return None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_models_take_what_the_schema_takes(kind):
    """A spec that the schema accepts is valid, or is refused by a rule between fields in one sentence."""
    spec = schema_of(kind)["properties"]["spec"]

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(specs(spec))
    def check(value):
        jsonschema.validate(value, closed(spec))
        document = {
            "apiVersion": "kvsync.dev/v1alpha1",
            "kind": kind.kind,
            "metadata": {"name": "a", "namespace": "b"},
            "spec": value,
        }
        error = refusal(document)
        if error is not None:
            assert "\n" not in str(error)
            assert error.field.startswith("spec")
            assert "is not allowed" not in error.reason, "a single field the schema takes and the model does not"

    check()
