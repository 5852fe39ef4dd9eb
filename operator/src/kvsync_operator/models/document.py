"""Parsing of a document, read from YAML or from the API server, into a validated resource.

A validation error of pydantic becomes one sentence that is shown in a condition, on a terminal or in a log. It names
the field, its value and what is allowed, and for an unknown field the existing field with the most similar name.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kvsync_events import EventsError, WireForm
from kvsync_operator import names
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.models.common import Model
from kvsync_operator.models.mockengine import MockEngineSpec
from kvsync_operator.models.prefixindex import PrefixIndexSpec

Spec = TypeVar("Spec", MockEngineSpec, PrefixIndexSpec)

_SPECS: dict[str, type[MockEngineSpec] | type[PrefixIndexSpec]] = {
    names.MOCK_ENGINE: MockEngineSpec,
    names.PREFIX_INDEX: PrefixIndexSpec,
}
_NAME = re.compile(r"^[a-z]([-a-z0-9]*[a-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Resource(Generic[Spec]):
    """A validated custom resource. `uid` and `generation` are empty if it has not been read from an API server."""

    kind: str
    name: str
    namespace: str
    spec: Spec
    uid: str = ""
    generation: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)


def parse_resource(document: Mapping[str, Any], namespace: str = "default") -> Resource[Any]:
    """Validate a custom resource.

    Args:
        document: The resource with its apiVersion, kind, metadata and spec. A status is ignored.
        namespace: Namespace of the resource if its metadata name none.

    Raises:
        InvalidSpecError: A field is invalid.
    """
    kind = document.get("kind")
    if document.get("apiVersion") != names.API_VERSION or kind not in _SPECS:
        allowed = " or ".join(_SPECS)
        raise InvalidSpecError("kind", f"{document.get('apiVersion')}/{kind} is not {allowed} of {names.API_VERSION}")
    metadata = document.get("metadata") or {}
    name = str(metadata.get("name") or "")
    if not _NAME.match(name) or len(name) > names.MAX_NAME:
        raise InvalidSpecError(
            "metadata.name",
            f"{name!r} must consist of lower-case letters, digits and '-', begin with a letter, and have at most"
            f" {names.MAX_NAME} characters",
        )
    spec = _parse_spec(_SPECS[str(kind)], document.get("spec"))
    return Resource(
        kind=str(kind),
        name=name,
        namespace=str(metadata.get("namespace") or namespace),
        spec=spec,
        uid=str(metadata.get("uid") or ""),
        generation=int(metadata.get("generation") or 0),
        annotations=dict(metadata.get("annotations") or {}),
    )


def _parse_spec(model: type[MockEngineSpec] | type[PrefixIndexSpec], data: object) -> MockEngineSpec | PrefixIndexSpec:
    if not isinstance(data, Mapping):
        raise InvalidSpecError("spec", "is missing" if data is None else "must be a mapping")
    try:
        spec = model.model_validate(data)
    except ValidationError as error:
        raise _spec_error(error, model) from None
    if isinstance(spec, MockEngineSpec):
        try:
            WireForm.for_version(spec.events.wire_version)
        except EventsError as error:
            raise InvalidSpecError("spec.events.wireVersion", str(error)) from None
    return spec


def _spec_error(error: ValidationError, model: type[Model]) -> InvalidSpecError:
    """Describe the first error in one sentence, followed by the number of further errors."""
    first = error.errors(include_url=False)[0]
    more = error.error_count() - 1
    tail = f" (and {more} more)" if more else ""
    path, reason = _describe(first, model)
    return InvalidSpecError(path, reason + tail)


def _describe(finding: ErrorDetails, model: type[Model]) -> tuple[str, str]:
    where = [part for part in finding["loc"] if part != "[key]"]
    path = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)
    value = finding.get("input")
    match finding["type"]:
        case "extra_forbidden":
            known = _fields_at(model, where[:-1])
            near = difflib.get_close_matches(str(where[-1]), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            return path, f"there is no such field; {hint}"
        case "missing":
            return path, "is missing"
        case "value_error":
            text = finding["msg"].removeprefix("Value error, ")
            inner, colon, rest = text.partition(": ")
            # A check of several fields begins its message with the path of the wrong field, relative to its own model.
            return (f"{path}.{inner}", rest) if colon and re.fullmatch(r"[A-Za-z.]+", inner) else (path, text)
        case _:
            message = finding["msg"]
            return path, f"{value!r} is not allowed: {message[0].lower()}{message[1:]}"


def _fields_at(model: type[Model], path: list[Any]) -> list[str]:
    """Return the YAML names of the fields of the model at `path`; empty if there is no model."""
    current: type[Model] | None = model
    for part in path:
        if isinstance(part, int):
            continue
        fields = getattr(current, "model_fields", {})
        found = next((info for info in fields.values() if info.alias == part), None)
        current = _model_in(found.annotation) if found is not None else None
    return [info.alias for info in getattr(current, "model_fields", {}).values() if info.alias]


def _model_in(annotation: object) -> type[Model] | None:
    """Return the model class inside unions, lists and `Annotated`."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if (inner := _model_in(argument)) is not None:
            return inner
    return None
