"""Prometheus metrics of the router, `kvsync_router_*`. The directory bounds the values of the label `endpoint`."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from kvsync_router.decisions.endpoints import EndpointStats
from kvsync_router.decisions.regret import Regret

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _EndpointCollector:
    """Load per endpoint, collected when it is scraped."""

    def __init__(self, statistics: Callable[[], list[EndpointStats]]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterable[Metric]:
        rows = self._statistics()
        gauges: tuple[tuple[str, str, Callable[[EndpointStats], float]], ...] = (
            ("up", "1 while the endpoint is in the rotation", lambda row: float(row.healthy)),
            ("inflight_requests", "Requests in flight", lambda row: row.requests),
            ("queued_requests", "Requests in flight whose answer has not begun", lambda row: row.queued),
            ("inflight_prefill_tokens", "Predicted prompt tokens still to compute", lambda row: row.prefill_tokens),
            ("inflight_context_tokens", "Predicted context of requests in flight", lambda row: row.decode_tokens),
        )
        for name, text, value in gauges:
            family = GaugeMetricFamily(f"kvsync_router_endpoint_{name}", text, labels=["endpoint"])
            for row in rows:
                family.add_metric([row.name], value(row))
            yield family


class RegretMetrics:
    """Counters of `kvsync_router.decisions.regret`, in prompt tokens."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._available = Counter(
            "kvsync_router_available_tokens", "Longest hit on any endpoint, by the index", registry=registry
        )
        self._chosen = Counter(
            "kvsync_router_chosen_tokens", "Hit on the endpoint that answered, by the index", registry=registry
        )
        self._reported = Counter(
            "kvsync_router_reported_tokens", "Hit that the engine reported for a predicted request", registry=registry
        )
        regret = Counter(
            "kvsync_router_regret_tokens", "Tokens of a hit that were missed, by cause", ["cause"], registry=registry
        )
        self._load, self._staleness, self._prediction = map(regret.labels, ("load", "staleness", "prediction"))
        self._unresolved = Counter(
            "kvsync_router_unresolved_requests",
            "Answered requests without all three figures: no answer of the index, or no report of the engine",
            registry=registry,
        )

    def count(self, regret: Regret | None) -> None:
        """Count one answered request."""
        if regret is None or regret.reported is None:
            self._unresolved.inc()
        if regret is None:
            return
        self._available.inc(regret.available)
        self._chosen.inc(regret.chosen)
        self._load.inc(regret.load)
        if regret.reported is not None:
            self._reported.inc(regret.reported)
            self._staleness.inc(regret.staleness)
            self._prediction.inc(regret.prediction)


class RouterMetrics:
    """The metrics of one router."""

    def __init__(
        self, statistics: Callable[[], list[EndpointStats]], registry: CollectorRegistry | None = None
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self.registry.register(_EndpointCollector(statistics))
        self.requests = Counter(
            "kvsync_router_requests",
            "Requests by the policy that decided and by outcome",
            ["policy", "outcome"],
            registry=self.registry,
        )
        self.retries = Counter(
            "kvsync_router_retries", "Attempts that failed before the first byte", ["reason"], registry=self.registry
        )
        self.fallbacks = Counter(
            "kvsync_router_fallbacks",
            "Decisions made by load, because the index did not answer",
            registry=self.registry,
        )
        self.prompt_tokens = Counter("kvsync_router_prompt_tokens", "Prompt tokens routed", registry=self.registry)
        self.matched_tokens = Counter(
            "kvsync_router_matched_tokens", "Prompt tokens matched on the chosen endpoint", registry=self.registry
        )
        self.predictions = Counter(
            "kvsync_router_predictions",
            "Answers whose cached tokens were compared with the prediction of the index, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.decision_seconds = Histogram(
            "kvsync_router_decision_seconds", "Time to decide", buckets=_SECONDS, registry=self.registry
        )
        self.first_byte_seconds = Histogram(
            "kvsync_router_first_byte_seconds",
            "From the request's last byte to the answer's first",
            buckets=_SECONDS,
            registry=self.registry,
        )

        self.regret = RegretMetrics(self.registry)

    def count_prediction(self, outcome: str) -> None:
        """Count one answer that was compared, or that could not be."""
        self.predictions.labels(outcome).inc()
