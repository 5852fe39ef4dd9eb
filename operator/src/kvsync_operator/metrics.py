"""The metrics of the operator. Label values are kinds, verbs and results, never the names of resources."""

from prometheus_client import Counter, Gauge, Histogram

API_REQUESTS = Counter("kvsync_operator_api_requests", "Requests to the API server", ["method", "result"])
PASSES = Counter("kvsync_operator_passes", "Reconcile passes", ["kind", "result"])
PASS_SECONDS = Histogram(
    "kvsync_operator_pass_seconds",
    "Duration of a reconcile pass",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
OBJECTS_APPLIED = Counter("kvsync_operator_objects_applied", "Objects applied", ["kind"])
OBJECTS_PRUNED = Counter("kvsync_operator_objects_pruned", "Objects deleted because no resource needs them", ["kind"])
REPAIRS = Counter("kvsync_operator_repairs", "Objects that were found changed or deleted and were restored")
EVENTS_POSTED = Counter("kvsync_operator_events_posted", "Kubernetes Events posted", ["type"])
RESOURCES = Gauge("kvsync_operator_resources", "Custom resources by kind and readiness", ["kind", "ready"])
WATCH_EVENTS = Counter("kvsync_operator_watch_events", "Objects delivered by watches", ["kind"])
WATCH_SILENT = Gauge("kvsync_operator_watch_silent", "1 while a watch lags behind a list or a write", ["kind"])
