"""Noticing a watch that went silent. Pure: the caller lists, and says what time it is.

Two signs, for two kinds of objects. A custom resource that a list shows, and the watch has not brought
in the same version for long, means a dead watch on it. An object we wrote must come back through its
watch; when it does not, that watch is dead. kopf reconnects streams that fall silent by itself; this is
for what it does not notice, and makes the liveness probe fail.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvsync_operator.reconcile.types import Reference, reference_of

__all__ = ["Watchdog"]


@dataclass(slots=True)
class Watchdog:
    """What is expected of the watches.

    Args:
        patience_s: for how long a watch may lag before it counts as silent.
        namespaces: the namespaces that are watched; empty means all.
    """

    patience_s: float
    namespaces: frozenset[str] = frozenset()
    _seen: dict[Reference, int] = field(default_factory=dict)
    _expected: dict[Reference, tuple[int, float]] = field(default_factory=dict)

    def saw(self, obj: Mapping[str, Any], now: float, *, deleted: bool = False) -> None:
        """A watch brought `obj`."""
        reference, version = reference_of(obj), _version(obj["metadata"])
        if deleted:
            self._seen.pop(reference, None)
            self._expected.pop(reference, None)
            return
        self._seen[reference] = max(version, self._seen.get(reference, 0))
        waiting = self._expected.get(reference)
        if waiting is not None and version >= waiting[0]:
            del self._expected[reference]
        elif waiting is not None:  # behind, but alive
            self._expected[reference] = (waiting[0], now)

    def expect(self, obj: Mapping[str, Any], now: float) -> None:
        """A write was answered with `obj`, or a list shows it: its watch has to bring this version or a later one."""
        reference, version = reference_of(obj), _version(obj["metadata"])
        if self.namespaces and reference.namespace not in self.namespaces:
            return
        if self._seen.get(reference, -1) >= version:
            return
        since = self._expected[reference][1] if reference in self._expected else now
        self._expected[reference] = (version, since)

    def forget(self, references: Iterable[Reference]) -> None:
        """These objects are gone: their watches owe nothing."""
        for reference in references:
            self._expected.pop(reference, None)
            self._seen.pop(reference, None)

    def silent(self, now: float) -> dict[str, float]:
        """Kinds whose watch owes something for longer than it may, and for how many seconds."""
        late: dict[str, float] = {}
        for reference, (_, since) in self._expected.items():
            if now - since > self.patience_s:
                late[reference.kind] = max(late.get(reference.kind, 0.0), now - since)
        return late


def _version(metadata: Mapping[str, Any]) -> int:
    text = str(metadata.get("resourceVersion") or "0")
    return int(text) if text.isdigit() else 0
