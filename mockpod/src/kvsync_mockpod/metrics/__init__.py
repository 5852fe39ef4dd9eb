"""Metrics in the Prometheus text format: a small registry and vLLM's metric names."""

from kvsync_mockpod.metrics.registry import Counter, Family, Gauge, Histogram, format_labels, render
from kvsync_mockpod.metrics.vllm import EngineMetrics

__all__ = ["Counter", "EngineMetrics", "Family", "Gauge", "Histogram", "format_labels", "render"]
