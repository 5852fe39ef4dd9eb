"""Metrics in the Prometheus text format: a small registry, vLLM's metric names and our own."""

from kvsync_mockpod.metrics.own import fault_families, publisher_families
from kvsync_mockpod.metrics.registry import Counter, Family, Gauge, Histogram, format_labels, render
from kvsync_mockpod.metrics.vllm import EngineMetrics

__all__ = [
    "Counter",
    "EngineMetrics",
    "Family",
    "Gauge",
    "Histogram",
    "fault_families",
    "format_labels",
    "publisher_families",
    "render",
]
