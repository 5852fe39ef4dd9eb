"""Metrics that vLLM does not have: what the mock engine publishes, and the faults that it injects."""

from collections.abc import Mapping

from kvsync_mockpod.metrics.registry import Counter, Family, format_labels
from kvsync_mockpod.publish import PublisherStats


def publisher_families(rank: int, stats: PublisherStats) -> list[Family]:
    """The counters of one rank's publisher."""
    labels = format_labels({"engine": str(rank)})

    def counter(name: str, text: str, value: int) -> Family:
        return Family(f"kvsync_mockpod_{name}", "counter", text, [_series(labels, value)])

    return [
        counter("event_batches", "Batches numbered and sent.", stats.batches),
        counter("events", "Events sent.", stats.events),
        counter("event_payload_bytes", "Bytes of payload sent.", stats.payload_bytes),
        counter("event_encode_errors", "Batches lost because they cannot be encoded.", stats.encode_errors),
        counter("replay_requests", "Replay requests received.", stats.replay_requests),
        counter("replay_refused", "Replay requests and replies not served.", stats.replay_refused),
        counter("replay_batches", "Batches sent again.", stats.replay_batches),
    ]


def fault_families(counts: Mapping[str, int]) -> list[Family]:
    """The injected faults by kind; nothing while there were none."""
    series = [_series(format_labels({"kind": kind}), count) for kind, count in sorted(counts.items())]
    return [Family("kvsync_mockpod_faults", "counter", "Faults injected.", series)] if series else []


def _series(labels: str, value: int) -> Counter:
    series = Counter(labels)
    series.value = value
    return series
