"""Detection of a watch that has stopped delivering. Pure: the caller lists objects and supplies the time.

kopf reconnects streams that fall silent, but it cannot notice a stream that stays open and delivers nothing. Two
observations reveal one. A custom resource appears in a list, but its watch does not deliver the listed version; or the
operator writes an object, and its watch does not deliver the written version. Either makes the liveness probe fail.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvsync_operator.objects.meta import resource_version
from kvsync_operator.reconcile.types import Reference, reference_of


@dataclass(slots=True)
class Watchdog:
    """The versions that the watches have delivered, and those that they still have to deliver.

    Args:
        max_lag_s: How long a watch may lag, in seconds, before it counts as silent.
        namespaces: The watched namespaces; empty means all.
    """

    max_lag_s: float
    namespaces: frozenset[str] = frozenset()
    _seen: dict[Reference, int] = field(default_factory=dict)
    _expected: dict[Reference, tuple[int, float]] = field(default_factory=dict)

    def saw(self, obj: Mapping[str, Any], now: float, *, deleted: bool = False) -> None:
        """Record that a watch delivered `obj`, or its deletion."""
        reference, version = reference_of(obj), resource_version(obj)
        if deleted:
            self._seen.pop(reference, None)
            self._expected.pop(reference, None)
            return
        self._seen[reference] = max(version, self._seen.get(reference, 0))
        expected = self._expected.get(reference)
        if expected is not None and version >= expected[0]:
            del self._expected[reference]
        elif expected is not None:  # the watch lags, but it delivers
            self._expected[reference] = (expected[0], now)

    def expect(self, obj: Mapping[str, Any], now: float) -> None:
        """Record that a write or a list returned `obj`, so that its watch must deliver this version or a later one."""
        reference, version = reference_of(obj), resource_version(obj)
        if self.namespaces and reference.namespace not in self.namespaces:
            return
        if self._seen.get(reference, -1) >= version:
            return
        since = self._expected[reference][1] if reference in self._expected else now
        self._expected[reference] = (version, since)

    def forget(self, references: Iterable[Reference]) -> None:
        """Expect nothing more about these objects, because they no longer exist."""
        for reference in references:
            self._expected.pop(reference, None)
            self._seen.pop(reference, None)

    def silent(self, now: float) -> dict[str, float]:
        """Return the kinds whose watch lags for more than `max_lag_s`, each with its lag in seconds."""
        late: dict[str, float] = {}
        for reference, (_, since) in self._expected.items():
            if now - since > self.max_lag_s:
                late[reference.kind] = max(late.get(reference.kind, 0.0), now - since)
        return late
