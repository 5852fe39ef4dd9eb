"""Conversion of a pydantic model to the structural schema of a CRD.

Kubernetes accepts a subset of JSON Schema without references, unions with null, and `additionalProperties` next to
`properties`. It adds extensions for lists and CEL rules, which the models state in `json_schema_extra`.
"""

from typing import Any

from kvsync_operator.models.common import Model

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
    """Return the structural schema of `model` with all references resolved and its keys in a stable order."""
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
    """Replace a reference, or a union `X | null`, by its target X. Other keys of the node take precedence over X."""
    if "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
    elif "anyOf" in node:
        (target,) = [option for option in node["anyOf"] if option.get("type") != "null"]
    else:
        return node
    beside = {key: value for key, value in node.items() if key not in ("$ref", "anyOf")}
    return {**_resolved(target, definitions), **beside}


def _values_of_map(node: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of the values of a map, None for other nodes. Kubernetes cannot restrict the keys."""
    patterns = node.get("patternProperties")
    if patterns:
        return dict(next(iter(patterns.values())))
    extra = node.get("additionalProperties")
    return extra if isinstance(extra, dict) else None
