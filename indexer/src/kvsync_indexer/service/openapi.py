"""`GET /openapi.json`: the OpenAPI 3.1 description, generated from the operations and the types of `api`.

The texts of fields are their docstrings, which are read from the source of `api`.
"""

import ast
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from kvsync_indexer.access import area_of
from kvsync_indexer.api import ErrorAnswer
from kvsync_indexer.service.operations import JSON, NDJSON, OPERATIONS, REASONS, Operation, Types

_REF: Final = "#/components/schemas/{name}"
_UINT64: Final = {"type": "integer", "minimum": 0, "maximum": 2**64 - 1}
INTRODUCTION: Final = (
    "The HTTP API of a kvsync index. Clients ignore fields that they do not know; a request with an unknown field is "
    "refused. A connection whose head is longer than 64 KiB is answered with 431, and one beyond the descriptor limit "
    "with 503."
)


@functools.cache
def describe() -> dict[str, Any]:
    """The document. It is the same for every index of this version."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "kvsync index", "version": _version(), "description": INTRODUCTION},
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def schemas() -> dict[str, Any]:
    """Every type by its name, with the texts of its fields."""
    used = {each for operation in OPERATIONS for each in (*operation.answers, *operation.takes, *operation.unwell)}
    _, components = msgspec.json.schema_components(
        sorted({*used, ErrorAnswer}, key=lambda each: each.__name__), ref_template=_REF
    )
    texts = {each.__name__: field_texts(each) for each in _structs(used)}
    for name, schema in components.items():
        for field, shape in schema.get("properties", {}).items():
            text = texts.get(name, {}).get(field)
            if text is not None:
                shape.setdefault("description", text)
    return components


def field_texts(kind: type[msgspec.Struct]) -> dict[str, str]:
    """The docstrings of the fields of a type and of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            texts |= _module_texts(base.__module__).get(base.__name__, {})
    return texts


@functools.cache
def _module_texts(module: str) -> dict[str, dict[str, str]]:
    """By class and field, what the string behind each field says; empty without the source."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, SyntaxError):
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            texts = found[node.name] = {}
            for field, text in zip(node.body, node.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(text):
                    texts[field.target.id] = re.sub(r"\s+", " ", str(text.value.value)).strip()  # type: ignore[attr-defined]
    return found


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _structs(kinds: set[type[msgspec.Struct]]) -> Iterator[type[msgspec.Struct]]:
    """These types and those that their fields have."""
    waiting, seen = list(kinds), set(kinds)
    while waiting:
        kind = waiting.pop()
        yield kind
        for field in msgspec.structs.fields(kind):
            inner = _inner(field.type) - seen
            seen |= inner
            waiting += inner


def _inner(kind: Any) -> set[type[msgspec.Struct]]:  # noqa: ANN401
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return {kind}
    return {found for argument in getattr(kind, "__args__", ()) for found in _inner(argument)}


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _identifier(operation),
        "responses": {str(status): answer for status, answer in sorted(_answers(operation).items())},
    }
    if area_of(operation.path) is not None:
        described["security"] = [{}, {"bearer": []}]
    if parameters := _parameters(operation):
        described["parameters"] = parameters
    if operation.takes:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {JSON: {"schema": _one_of(operation.takes)}},
        }
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "required": False, "description": text, "schema": {"type": "number"}}
        for name, text in operation.queries.items()
    ]
    if "{name}" in operation.path:
        text = {"type": "string", "minLength": 1}
        parameters.append(
            {"name": "name", "in": "path", "required": True, "description": "Name of the publisher", "schema": text}
        )
    return parameters


def _answers(operation: Operation) -> dict[int, dict[str, Any]]:
    if not operation.answers:
        schema: dict[str, Any] = {"type": "object"} if operation.media == JSON else {"type": "string"}
    elif operation.media == NDJSON:
        schema = {"type": "string", "description": f"Lines, each of them a {operation.answers[0].__name__}"}
    else:
        schema = _one_of(operation.answers)
    answers = {200: {"description": "The answer", "content": {operation.media: {"schema": schema}}}}
    limited = area_of(operation.path) is not None
    for status in (401, *operation.errors) if limited else operation.errors:
        answers[status] = _error(status)
    if operation.unwell:
        answers[503] = {
            "description": "It is not; the body says why",
            "content": {JSON: {"schema": _one_of(operation.unwell)}},
        }
    return answers


def _error(status: int) -> dict[str, Any]:
    return {"description": REASONS[status], "content": {JSON: {"schema": _one_of((ErrorAnswer,))}}}


def _one_of(kinds: Types) -> dict[str, Any]:
    refs = [{"$ref": _REF.format(name=kind.__name__)} for kind in kinds]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _identifier(operation: Operation) -> str:
    words = re.findall(r"[a-z]+", operation.path.replace("{name}", "named").replace("/v1", ""))
    return "_".join((operation.method, *words))


def _version() -> str:
    try:
        return version("kvsync-indexer")
    except PackageNotFoundError:
        return "0"
