"""Reads resources from disk as `kubectl apply -f` does: files, folders, and several documents per file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from kvsync.errors import UsageProblemError
from kvsync_operator.errors import InvalidSpecError
from kvsync_operator.models.document import Resource, parse_resource

SUFFIXES = (".yaml", ".yml", ".json")


def read_resources(paths: Sequence[Path]) -> list[Resource[Any]]:
    """Every MockEngine and PrefixIndex in `paths`. Raises UsageProblemError, which names the file and the field."""
    resources: list[Resource[Any]] = []
    seen: dict[tuple[str, str, str], Path] = {}
    for path in _files(paths):
        for document in _documents(path):
            resource = parse(document, str(path))
            key = (resource.kind, resource.namespace, resource.name)
            if key in seen:
                raise UsageProblemError(f"{path}: {resource.kind} {resource.name} is also in {seen[key]}")
            seen[key] = path
            resources.append(resource)
    if not resources:
        raise UsageProblemError(f"no MockEngine or PrefixIndex in {', '.join(map(str, paths))}")
    return resources


def parse(document: dict[str, Any], origin: str) -> Resource[Any]:
    """One document as a validated resource. Raises UsageProblemError."""
    try:
        return parse_resource(document)
    except InvalidSpecError as error:
        raise UsageProblemError(f"{origin}: {error}") from None


def _files(paths: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        else:
            files.append(path)
    return files


def _documents(path: Path) -> list[dict[str, Any]]:
    try:
        loaded = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblemError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from None
    except yaml.YAMLError as error:
        raise UsageProblemError(f"{path}: {' '.join(str(error).split())}") from None
    documents = [document for document in loaded if document is not None]
    for document in documents:
        if not isinstance(document, dict):
            raise UsageProblemError(f"{path}: a resource is a mapping, not {type(document).__name__}")
    return documents
