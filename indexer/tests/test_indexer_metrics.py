"""The text of `/metrics`, whatever a metric holds."""

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from kvsync_indexer.service.metrics import render_metrics


class Families(Collector):
    def __init__(self, **values):
        self.values = values

    def collect(self):
        for name, value in self.values.items():
            family = GaugeMetricFamily(name, name)
            family.add_metric([], value)
            yield family


def test_a_value_that_cannot_be_written_costs_only_its_own_family():
    registry = CollectorRegistry()
    registry.register(Families(before=1, poisoned=10**400, after=2))
    lines = render_metrics(registry).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["before 1.0", "after 2.0"]
