"""Prometheus metrics, which are collected from the service when they are scraped; the hot paths only count.

Names have the form `kvsync_indexer_<noun>_<unit>[_total]`. The only label without a fixed set of values is the
publisher, and discovery bounds the number of publishers.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, get_args

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from kvsync_indexer.api import PublisherRow, Verdict
from kvsync_indexer.audit import Auditor
from kvsync_indexer.core import IndexCore
from kvsync_indexer.ingest import Ingest
from kvsync_indexer.latency import LatencyHistogram
from kvsync_indexer.service.match import MatchEndpoint
from kvsync_indexer.service.snapshots import Snapshots
from kvsync_indexer.service.views import publisher_row
from kvsync_indexer.sync import State

if TYPE_CHECKING:
    from kvsync_indexer.discovery import KubernetesDiscovery

_log = structlog.get_logger("kvsync_indexer.service")

_COUNTERS = {
    "gaps": "Times sequence numbers were missing.",
    "missed": "Sequence numbers that were missing when a gap opened.",
    "resyncs": "Times blocks were dropped and rebuilt.",
    "restarts": "Restarts seen in the stream itself.",
    "epochs": "New epochs announced by discovery.",
    "truncations": "Times the replay buffer did not reach back far enough.",
    "quarantines": "Times the publisher was quarantined.",
    "stales": "Times the publisher went stale.",
    "disconnects": "Connections lost.",
    "decode_errors": "Batches or frames that could not be decoded.",
    "duplicates": "Batches seen again and ignored.",
    "replays": "Replays requested.",
    "replay_failures": "Replays that failed.",
    "replay_lies": "Answers of a replay server that contradict the stream.",
    "buffer_dropped": "Live batches dropped from the buffer during a replay (found again as a gap).",
    "transitions": "State changes.",
    "batches": "Batches applied.",
    "events": "Events applied.",
    "unknown_events": "Events of an unknown type.",
    "unknown_removed": "Removals of blocks that were not resident.",
    "set_aside": "Batches left out because an earlier process of the index ended while it applied them.",
    "refused": "Blocks left out at a limit.",
}
_GAUGES = {
    "blocks": "Resident blocks.",
    "orphans": "Blocks that wait for their parent.",
    "lag": "Batches known to exist and not applied yet.",
    "buffered": "Live batches waiting for a replay.",
}


class _One(Collector):
    """A single family, for `generate_latest`."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterator[Metric]:
        """The family."""
        yield self._family


def render_metrics(registry: CollectorRegistry) -> bytes:
    """Every family as text; one with a value that cannot be written is left out, and the rest is answered."""
    parts = []
    for family in registry.collect():
        one = CollectorRegistry(auto_describe=False)
        one.register(_One(family))
        try:
            parts.append(generate_latest(one))
        except (ValueError, OverflowError, TypeError) as error:
            _log.error("metric_left_out", family=family.name, problem=f"{type(error).__name__}: {error}"[:200])
    return b"".join(parts)


class IndexerCollector(Collector):
    """The metric families of one service."""

    def __init__(
        self,
        ingest: Ingest,
        core: IndexCore,
        match: MatchEndpoint,
        auditor: Auditor,
        snapshots: Snapshots,
        monotonic: Callable[[], float],
        discovery: "KubernetesDiscovery | None" = None,
    ) -> None:
        self._ingest = ingest
        self._core = core
        self._match = match
        self._auditor = auditor
        self._snapshots = snapshots
        self._monotonic = monotonic
        self._discovery = discovery

    def collect(self) -> Iterator[Metric]:
        """All families."""
        now = self._monotonic()
        rows = [publisher_row(link, self._core, now) for link in self._ingest.links()]
        yield from _publisher_families(rows)
        yield from self._state_families(rows)
        yield from self._core_families()
        yield from self._latency_families()
        yield from self._audit_families()
        yield from self._prediction_families()
        yield from self._snapshot_families()
        if self._discovery is not None:
            yield from self._discovery_families(self._discovery, now)

    def _state_families(self, rows: list[PublisherRow]) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "kvsync_indexer_publisher_state", "1 for the state a publisher is in.", labels=["publisher", "state"]
        )
        count = GaugeMetricFamily("kvsync_indexer_publishers", "Publishers by state.", labels=["state"])
        for state in State:
            if state is State.REMOVED:
                continue
            count.add_metric([str(state)], sum(row.state == state for row in rows))
            for row in rows:
                states.add_metric([row.name, str(state)], float(row.state == state))
        yield states
        yield count

    def _core_families(self) -> Iterator[Metric]:
        stats = self._core.stats()
        yield InfoMetricFamily("kvsync_indexer_core", "Which index core runs.", {"kind": self._core.name})
        for name, value, text in (
            ("core_blocks", stats.blocks, "Resident blocks of all publishers."),
            ("core_keys", stats.keys, "Distinct keys behind them."),
            ("core_bytes", stats.bytes_estimate, "Estimated memory of the core."),
        ):
            family = GaugeMetricFamily(f"kvsync_indexer_{name}", text)
            family.add_metric([], value)
            yield family
        received = CounterMetricFamily("kvsync_indexer_received_bytes", "Payload bytes received.")
        received.add_metric([], self._ingest.shared.meter.bytes_in)
        yield received
        defects = CounterMetricFamily("kvsync_indexer_defects", "Unexpected exceptions in the I/O thread.")
        defects.add_metric([], self._ingest.defects)
        yield defects

    def _latency_families(self) -> Iterator[Metric]:
        yield _histogram(
            "event_arrival_seconds", "From the making of a batch to its arrival.", self._ingest.shared.meter.arrival
        )
        yield _histogram(
            "event_visible_seconds",
            "From the making of a batch to its being matched (trusted publishers).",
            self._ingest.shared.meter.visible,
        )
        yield _histogram("match_seconds", "Time to answer /v1/match.", self._match.seconds)
        refused = CounterMetricFamily("kvsync_indexer_match_refused", "Match requests that were refused.")
        refused.add_metric([], self._match.refused)
        yield refused

    def _audit_families(self) -> Iterator[Metric]:
        audits = CounterMetricFamily("kvsync_indexer_audits", "Audits of a publisher.", labels=["verdict"])
        for verdict in get_args(Verdict):  # also those not reached yet, because a rate needs a sample before the case
            audits.add_metric([verdict], self._auditor.verdicts[verdict])
        yield audits
        for field, text in (
            ("missing", "Blocks the engine has and the index has not, at the last audit."),
            ("extra", "Blocks the index has and the engine has not, at the last audit."),
        ):
            family = GaugeMetricFamily(f"kvsync_indexer_audit_{field}_blocks", text, labels=["publisher"])
            for name, audit in sorted(self._auditor.last.items()):
                family.add_metric([name], getattr(audit, field))
            yield family

    def _prediction_families(self) -> Iterator[Metric]:
        totals = sorted(self._auditor.predictions.totals.items())
        for field, text in (
            ("requests", "Requests whose prediction was reported."),
            ("exact", "Of those, predicted to the token."),
            ("predicted", "Tokens predicted to be cached."),
            ("cached", "Tokens that engines found cached."),
            ("over", "Tokens predicted and not cached (false hits)."),
            ("under", "Tokens cached and not predicted (missed hits)."),
        ):
            unit = "" if field in ("requests", "exact") else "_tokens"
            family = CounterMetricFamily(f"kvsync_indexer_prediction_{field}{unit}", text, labels=["publisher"])
            for name, each in totals:
                family.add_metric([name], getattr(each, field))
            yield family

    def _snapshot_families(self) -> Iterator[Metric]:
        written = CounterMetricFamily("kvsync_indexer_snapshots", "Snapshots written.")
        written.add_metric([], self._snapshots.written)
        failures = CounterMetricFamily("kvsync_indexer_snapshot_failures", "Snapshots that could not be written.")
        failures.add_metric([], self._snapshots.failures)
        size = GaugeMetricFamily("kvsync_indexer_snapshot_bytes", "Size of the last snapshot written.")
        size.add_metric([], self._snapshots.last_bytes)
        at = GaugeMetricFamily("kvsync_indexer_snapshot_timestamp_seconds", "Unix time of the last snapshot written.")
        if self._snapshots.last_at is not None:
            at.add_metric([], self._snapshots.last_at)
        yield from (written, failures, size, at)

    def _discovery_families(self, discovery: "KubernetesDiscovery", now: float) -> Iterator[Metric]:
        counters = {
            name: CounterMetricFamily(f"kvsync_indexer_discovery_{name}", text, labels=["namespace"])
            for name, text in (
                ("lists", "Full lists of pods."),
                ("watches", "Watches begun."),
                ("failures", "Requests to the API server that failed."),
            )
        }
        age = GaugeMetricFamily(
            "kvsync_indexer_discovery_contact_age_seconds",
            "Since the API server last said anything.",
            labels=["namespace"],
        )
        for watcher in discovery.watchers:
            scope = watcher.namespace or "*"
            for name, family in counters.items():
                family.add_metric([scope], getattr(watcher, name))
            if watcher.last_contact is not None:
                age.add_metric([scope], max(0.0, now - watcher.last_contact))
        skipped = GaugeMetricFamily("kvsync_indexer_discovery_problems", "Pods and namespaces that cannot be followed.")
        skipped.add_metric([], discovery.problem_count)
        yield from (*counters.values(), age, skipped)


def _publisher_families(rows: list[PublisherRow]) -> Iterator[Metric]:
    for field, text in _COUNTERS.items():
        counter = CounterMetricFamily(f"kvsync_indexer_{field}", text, labels=["publisher"])
        for row in rows:
            counter.add_metric([row.name], getattr(row, field))
        yield counter
    for field, text in _GAUGES.items():
        name = "sequence_lag" if field == "lag" else f"publisher_{field}"
        gauge = GaugeMetricFamily(f"kvsync_indexer_{name}", text, labels=["publisher"])
        for row in rows:
            gauge.add_metric([row.name], getattr(row, field))
        yield gauge
    yield _optional(rows, "publisher_age_seconds", "age_s", "Upper bound of the time since the last sign of life.")
    yield _optional(rows, "event_lag_seconds", "lag_s", "Age of the last live batch when it arrived.")
    incomplete = GaugeMetricFamily(
        "kvsync_indexer_publisher_incomplete", "1: more may be resident than is known.", labels=["publisher"]
    )
    for row in rows:
        incomplete.add_metric([row.name], float(row.incomplete))
    yield incomplete


def _optional(rows: list[PublisherRow], name: str, field: str, text: str) -> Metric:
    gauge = GaugeMetricFamily(f"kvsync_indexer_{name}", text, labels=["publisher"])
    for row in rows:
        value = getattr(row, field)
        if value is not None:
            gauge.add_metric([row.name], value)
    return gauge


def _histogram(name: str, text: str, source: LatencyHistogram) -> Metric:
    return HistogramMetricFamily(f"kvsync_indexer_{name}", text, buckets=source.cumulative(), sum_value=source.total_s)
