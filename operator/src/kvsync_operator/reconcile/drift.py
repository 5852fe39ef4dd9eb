"""Comparison of a live object with the desired one.

The API server adds defaults, and other controllers add fields. A live object is therefore correct if it contains the
desired one. A field that is no longer desired is not found by this comparison, but by the spec-hash annotation, which
differs in that case.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kvsync_operator.quantity import same_quantity


def is_contained(desired: object, live: object) -> bool:
    """Return whether `live` contains `desired`. Maps are compared by key, lists by name or uid, or else by position."""
    return find_drift(desired, live) is None


def find_drift(desired: object, live: object, path: str = "") -> str | None:
    """Return the path of the first difference, None if `live` contains `desired`."""
    if isinstance(desired, Mapping):
        return _drift_in_map(desired, live, path)
    if isinstance(desired, list):
        return _drift_in_list(desired, live, path)
    if desired == live or same_quantity(desired, live):
        return None
    return path


def _drift_in_map(desired: Mapping[str, Any], live: object, path: str) -> str | None:
    if not isinstance(live, Mapping):
        return path if desired or live is not None else None  # the API server omits empty maps
    for key, value in desired.items():
        found = find_drift(value, live.get(key), f"{path}.{key}" if path else key)
        if found is not None:
            return found
    return None


def _drift_in_list(desired: Sequence[Any], live: object, path: str) -> str | None:
    if not isinstance(live, list):
        return path if desired or live is not None else None
    key = _merge_key(desired)
    if key is None:
        if len(desired) != len(live):
            return path
        pairs = list(zip(desired, live, strict=True))
    else:
        by_key = {entry.get(key): entry for entry in live if isinstance(entry, Mapping)}
        pairs = [(entry, by_key.get(entry[key])) for entry in desired]
    for position, (wanted, present) in enumerate(pairs):
        name = wanted[key] if key else position
        found = find_drift(wanted, present, f"{path}[{name}]")
        if found is not None:
            return found
    return None


def _merge_key(entries: Sequence[Any]) -> str | None:
    """Return the field that identifies the entries of a list, None if the entries have no such field."""
    for key in ("name", "uid"):
        if entries and all(isinstance(entry, Mapping) and key in entry for entry in entries):
            return key
    return None
