"""Parsing of Prometheus metrics."""

import math
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Sample = tuple[str, dict[str, str], float]


@dataclass(frozen=True)
class Histogram:
    """Cumulative counts by upper bound."""

    buckets: dict[float, float]

    def since(self, earlier: "Histogram") -> "Histogram":
        return Histogram({bound: count - earlier.buckets.get(bound, 0.0) for bound, count in self.buckets.items()})

    def quantile(self, share: float) -> float:
        """Return the upper bound of the bucket that contains the quantile; 0 if the histogram is empty."""
        bounds = sorted(self.buckets)
        total = self.buckets[bounds[-1]] if bounds else 0.0
        if not total:
            return 0.0
        found = next(bound for bound in bounds if self.buckets[bound] >= share * total)
        return found if math.isfinite(found) else bounds[-2]


@dataclass(frozen=True)
class Metrics:
    """All samples of one page."""

    samples: list[Sample]

    @classmethod
    def parse(cls, page: str) -> "Metrics":
        families = text_string_to_metric_families(page)
        return cls([(s.name, dict(s.labels), s.value) for family in families for s in family.samples])

    def total(self, name: str) -> float:
        """Return the sum of a metric over all label sets."""
        return sum(value for sample, _, value in self.samples if sample == name)

    def value(self, name: str) -> float:
        (value,) = [value for sample, _, value in self.samples if sample == name]
        return value

    def histogram(self, name: str) -> Histogram:
        return Histogram({float(ls["le"]): value for sample, ls, value in self.samples if sample == f"{name}_bucket"})
