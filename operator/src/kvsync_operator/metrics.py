"""The operator's own metrics. Labels are bounded: kinds, verbs, results; never a resource's name."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "API_REQUESTS",
    "EVENTS_POSTED",
    "OBJECTS_APPLIED",
    "OBJECTS_PRUNED",
    "PASSES",
    "PASS_SECONDS",
    "REPAIRS",
    "RESOURCES",
    "WATCH_EVENTS",
    "WATCH_SILENT",
]

API_REQUESTS = Counter("kvsync_operator_api_requests", "Requests to the API server", ["method", "result"])
PASSES = Counter("kvsync_operator_passes", "Passes over a custom resource", ["kind", "result"])
PASS_SECONDS = Histogram(
    "kvsync_operator_pass_seconds",
    "Time of one pass over a custom resource",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
OBJECTS_APPLIED = Counter("kvsync_operator_objects_applied", "Objects applied", ["kind"])
OBJECTS_PRUNED = Counter("kvsync_operator_objects_pruned", "Objects deleted because nothing wants them", ["kind"])
REPAIRS = Counter("kvsync_operator_repairs", "Objects found changed or gone and put right")
EVENTS_POSTED = Counter("kvsync_operator_events_posted", "Kubernetes Events posted", ["type"])
RESOURCES = Gauge("kvsync_operator_resources", "Custom resources by kind and readiness", ["kind", "ready"])
WATCH_EVENTS = Counter("kvsync_operator_watch_events", "Objects seen by watches", ["kind"])
WATCH_SILENT = Gauge("kvsync_operator_watch_silent", "1 while a watch misses what a list shows", ["kind"])
