"""`GET /openapi.json`: a description of the pod, generated from its route table and the structs of its bodies.

Clients and fuzzers read it; a test fuzzes the pod with it.
"""

from typing import Any

import msgspec
from pydantic import BaseModel

from kvsync_mockpod import __version__
from kvsync_mockpod.http.routes import Route

_REF = "#/components/schemas/{name}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}
_PART = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"enum": ["text"]}, "text": {"type": "string"}},
}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "type": {"enum": ["message"]},
        "role": {"type": "string", "minLength": 1, "maxLength": 64},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _PART}]},
    },
}
_TOKENS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1}}
_STRING = {"type": "string", "minLength": 1}
_PROMPT = {
    "anyOf": [
        _STRING,
        _TOKENS,
        {"type": "array", "minItems": 1, "items": _STRING},
        {"type": "array", "minItems": 1, "items": _TOKENS},
    ]
}
_SALT = {"anyOf": [{"type": "string", "pattern": r"^[A-Za-z0-9_.:-]{1,128}$"}, {"type": "null"}]}
_SAYS = {
    200: "OK",
    400: "The request is refused; the message says which field and why",
    401: "No valid API key",
    404: "No such model, adapter or answer",
    413: "The body is too large",
    429: "The waiting queue is full",
    500: "The request failed in the engine",
    503: "The pod is shutting down, or an engine has stopped",
}


def describe(routes: list[Route], models: list[str], *, keyed: bool) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `routes`; `models` are the model names, `keyed` says that /v1 requires an API key."""
    bodies = [route.body for route in routes if route.body is not None and issubclass(route.body, msgspec.Struct)]
    _, components = msgspec.json.schema_components(bodies, ref_template=_REF)
    components["Error"] = _ERROR
    for component in components.values():
        _refine(component, models)
    for route in routes:
        if route.body is not None and issubclass(route.body, BaseModel):
            schema = route.body.model_json_schema(ref_template="#/components/schemas/{model}")
            components.update(schema.pop("$defs", {}))
            components[route.body.__name__] = schema
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, keyed=keyed)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "kvsync mock engine pod", "version": __version__},
        "paths": paths,
        "components": {"schemas": components},
    }
    if keyed:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return document


def _refine(component: dict[str, Any], models: list[str]) -> None:
    """Add what the structs do not express: the names of the models, and the form of a message."""
    properties = component.get("properties", {})
    if "model" in properties:
        required = "model" in component.get("required", ())
        properties["model"] = {"enum": models if required else [*models, None]}
    if "prompt" in properties and "suffix" in properties:
        properties["prompt"] = _PROMPT
        properties["suffix"] = {"enum": [None, ""]}
        component["required"] = [*component.get("required", ()), "prompt"]
    if "cache_salt" in properties:
        properties["cache_salt"] = _SALT
    for name in ("messages", "input"):
        for place in (properties.get(name, {}), *properties.get(name, {}).get("anyOf", ())):
            if place.get("type") == "array":
                place["items"] = _MESSAGE


def _operation(route: Route, *, keyed: bool) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": schema} for name, schema in route.query.items()
    ]
    if "{" in route.path:
        name = route.path[route.path.index("{") + 1 : route.path.index("}")]
        parameters.append({"name": name, "in": "path", "required": True, "schema": {"type": "string"}})
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method.lower()}{route.path.replace('/', '_').strip('{}')}",
        "parameters": parameters,
        "responses": {str(status): _answer(route, status) for status in route.statuses},
    }
    if route.body is not None:
        schema = {"$ref": _REF.format(name=route.body.__name__)}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if keyed and route.path.startswith("/v1"):
        operation["security"] = [{"key": []}]
    return operation


def _answer(route: Route, status: int) -> dict[str, Any]:
    if status == 200:
        content: dict[str, Any] = {route.content: {}}
        if route.streams:
            content["text/event-stream"] = {}
        return {"description": _SAYS[status], "content": content}
    if route.path in ("/health", "/ping"):
        return {"description": _SAYS[status]}
    return {
        "description": _SAYS[status],
        "content": {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}},
    }
