"""Counters, gauges and histograms in the Prometheus text format.

The client library is not used because every token makes an observation, because names, buckets and labels must be
exactly vLLM's, and because a pod has a budget of 60 MiB. Not thread-safe: it is used on the event loop only.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence


def format_labels(labels: Mapping[str, str]) -> str:
    """Labels as `a="x",b="y"`, escaped for the text format."""

    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

    return ",".join(f'{name}="{escape(value)}"' for name, value in labels.items())


def _number(value: float) -> str:
    return repr(float(value)) if value != float("inf") else "+Inf"


def _sample(name: str, labels: str, value: float) -> str:
    return f"{name}{{{labels}}} {_number(value)}" if labels else f"{name} {_number(value)}"


class Counter:
    """A number that only increases."""

    __slots__ = ("labels", "value")

    def __init__(self, labels: str = "") -> None:
        self.labels = labels
        self.value: float = 0

    def inc(self, amount: float = 1) -> None:
        """Increase the counter."""
        self.value += amount

    def samples(self, name: str) -> Iterable[str]:
        """The lines of this series."""
        yield _sample(f"{name}_total", self.labels, self.value)


class Gauge:
    """A number that is read when metrics are requested."""

    __slots__ = ("labels", "read")

    def __init__(self, read: Callable[[], float], labels: str = "") -> None:
        self.read = read
        self.labels = labels

    def samples(self, name: str) -> Iterable[str]:
        """The lines of this series."""
        yield _sample(name, self.labels, self.read())


class Histogram:
    """Observations in buckets with inclusive upper bounds."""

    __slots__ = ("_bounds", "_counts", "labels", "sum")

    def __init__(self, bounds: Sequence[float], labels: str = "") -> None:
        self._bounds = list(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self.labels = labels
        self.sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count `value` `times` times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self.sum += value * times

    @property
    def count(self) -> int:
        """Number of observations so far."""
        return sum(self._counts)

    def samples(self, name: str) -> Iterable[str]:
        """The lines of this series: cumulative buckets, count, sum."""
        before = f"{self.labels}," if self.labels else ""
        total = 0
        for bound, count in zip([*self._bounds, float("inf")], self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{before}le="{_number(bound)}"}} {_number(total)}'
        yield _sample(f"{name}_count", self.labels, total)
        yield _sample(f"{name}_sum", self.labels, self.sum)


class Family:
    """One metric name with its kind, help text and series."""

    __slots__ = ("kind", "name", "series", "text")

    def __init__(self, name: str, kind: str, text: str, series: Sequence[Counter | Gauge | Histogram]) -> None:
        self.name = name
        self.kind = kind
        self.text = text
        self.series = list(series)


def render(families: Iterable[Family]) -> str:
    """All families in the text format; families of the same name are merged."""
    lines: list[str] = []
    merged: dict[str, list[Family]] = {}
    for family in families:
        merged.setdefault(family.name, []).append(family)
    for name, group in merged.items():
        shown = f"{name}_total" if group[0].kind == "counter" else name
        lines.append(f"# HELP {shown} {group[0].text}")
        lines.append(f"# TYPE {shown} {group[0].kind}")
        for family in group:
            for series in family.series:
                lines.extend(series.samples(name))
    lines.append("")
    return "\n".join(lines)
