"""Whether a live object is what it should be.

The API server adds defaults and other controllers add fields, so a live object is right when it
*contains* the desired one. What an earlier version of us wrote and the present one does not is found by
the spec-hash annotation, which then differs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from kvsync_operator.objects.quantity import same_quantity

__all__ = ["find_drift", "is_contained"]


def is_contained(desired: object, live: object) -> bool:
    """Whether `live` has everything `desired` has: maps by key, lists of named entries by name, else in order."""
    return find_drift(desired, live) is None


def find_drift(desired: object, live: object, path: str = "") -> str | None:
    """The path of the first difference, None when `live` contains `desired`."""
    if isinstance(desired, Mapping):
        return _drift_in_map(desired, live, path)
    if isinstance(desired, list):
        return _drift_in_list(desired, live, path)
    if desired == live or same_quantity(desired, live):
        return None
    return path


def _drift_in_map(desired: Mapping[str, Any], live: object, path: str) -> str | None:
    if not isinstance(live, Mapping):
        return path if desired or live is not None else None  # the API leaves an empty map out
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
    """The field that tells the entries apart, for lists into which others may add entries of their own."""
    for key in ("name", "uid"):
        if entries and all(isinstance(entry, Mapping) and key in entry for entry in entries):
            return key
    return None
