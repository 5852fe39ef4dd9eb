"""The CRD reference in Markdown, generated from the schemas that the API server uses."""

from collections.abc import Iterator
from typing import Any

from kvsync_operator import names
from kvsync_operator.crds import Kind, build_crd


def render_reference(kind: Kind) -> str:
    """Return the page of one kind: a table of all fields of spec and status, and the rules between fields."""
    crd = build_crd(kind)
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [
        "<!-- Generated from the pydantic models by `make manifests`. Do not edit. -->",
        f"# {kind.kind} ({names.API_VERSION})",
        "",
        kind.description,
        "",
        f"`kubectl get {kind.plural}`, short name `{kind.short}`; namespaced, with subresources `status` and `scale`.",
        "",
    ]
    for part in ("spec", "status"):
        lines += [f"## {part}", "", "|Field|Type|Default|Meaning|", "|---|---|---|---|"]
        lines += [_row(*entry) for entry in _walk(schema["properties"][part], part)]
        lines.append("")
    lines += ["## Rules", "", "The API server checks these rules (as CEL expressions), and so does the operator:", ""]
    lines += [f"- {rule['message']}" for rule in _rules(schema)]
    return "\n".join(lines) + "\n"


def _walk(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    required = schema.get("required", [])
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, child, name in required
        yield from _walk(child, here)
        if child.get("type") == "array":
            yield from _walk(child["items"], f"{here}[]")


def _rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", [])
    for child in schema.get("properties", {}).values():
        yield from _rules(child)
    if isinstance(schema.get("items"), dict):
        yield from _rules(schema["items"])


def _row(path: str, schema: dict[str, Any], required: bool) -> str:
    default = schema.get("default")
    shown = "**required**" if required else "" if default in (None, {}, []) else f"`{_plain(default)}`"
    meaning = schema.get("description", "").replace("|", "\\|")
    return f"|`{path}`|{_type(schema)}|{shown}|{meaning}|"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {inner}" for key, inner in value.items())
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " \\| ".join(f"`{option}`" for option in schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    match schema.get("type"):
        case "integer":
            return "integer" + _range(schema.get("minimum"), schema.get("maximum"))
        case "string":
            return "string" + _range(None, schema.get("maxLength"), " characters")
        case "array":
            return f"list of {_type(schema['items'])}" + _range(None, schema.get("maxItems"), " items")
        case "object" if "additionalProperties" in schema:
            return "map" + _range(None, schema.get("maxProperties"), " entries")
        case other:
            return str(other)


def _range(low: int | None, high: int | None, unit: str = "") -> str:
    if low is not None and high is not None:
        return f", {low} to {high}{unit}"
    if high is not None:
        return f", at most {high}{unit}"
    return f", {low} or more" if low is not None else ""
