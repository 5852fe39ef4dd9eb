"""From a pydantic model to the structural schema a CRD needs.

Kubernetes takes a subset of JSON Schema: no references, no null unions, no `additionalProperties`
beside `properties`, and list and CEL extensions of its own. What the models cannot say in plain JSON
Schema they put into `json_schema_extra`, and this module carries it over.
"""

from typing import Any

from kvsync_operator.models.common import Model

__all__ = ["structural_schema"]

_KEEP = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "maxProperties",
    "required",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-validations",
)


def structural_schema(model: type[Model]) -> dict[str, Any]:
    """The structural schema of `model`, references resolved, in a stable order of keys."""
    whole = model.model_json_schema(by_alias=True)
    return _convert(whole, whole.get("$defs", {}))


def _convert(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolved(node, definitions)
    result = {key: node[key] for key in _KEEP if key in node}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if result.get("default", ...) is None:
        del result["default"]
    if "const" in node:
        result["enum"] = [node["const"]]
    if "properties" in node:
        result["properties"] = {name: _convert(child, definitions) for name, child in node["properties"].items()}
    if "items" in node:
        result["items"] = _convert(node["items"], definitions)
    if (values := _values_of_map(node)) is not None:
        result["additionalProperties"] = _convert(values, definitions)
    if "x-list-map-keys" in node:
        result["x-kubernetes-list-type"] = "map"
        result["x-kubernetes-list-map-keys"] = node["x-list-map-keys"]
    elif result.get("type") == "array":
        result.setdefault("x-kubernetes-list-type", "atomic")
    return result


def _resolved(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """`node` with its reference or its `X | null` union replaced by X; what stands beside them wins."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
    elif "anyOf" in node:
        (target,) = [option for option in node["anyOf"] if option.get("type") != "null"]
    else:
        return node
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    return {**_resolved(target, definitions), **beside}


def _values_of_map(node: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a map's values; Kubernetes has no rule for its keys."""
    patterns = node.get("patternProperties")
    if patterns:
        return dict(next(iter(patterns.values())))
    extra = node.get("additionalProperties")
    return extra if isinstance(extra, dict) else None
