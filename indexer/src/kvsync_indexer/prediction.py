"""Prediction error: the prefix that the index predicted to be cached, against what the engine found in its cache.

This takes the place of an audit for engines without a debug endpoint, such as real vLLM. For each request that it
routed, a router reports the matched tokens that the index named and the `cached_tokens` in the usage of the answer. A
prediction above the truth is a false hit, and one below it a missed hit.
"""

import math
import re
from dataclasses import dataclass

from kvsync_indexer.api import PredictionReport

MOST_TOKENS = 1 << 31
"""No prompt is longer. Larger numbers, which JSON can hold, would end in sums that no metric can show."""
ENOUGH_REQUESTS = 64
_HITS = re.compile(r"^vllm:prefix_cache_hits_total(?:\{[^}]*\})? ([0-9.eE+]+)", re.MULTILINE)
_QUERIES = re.compile(r"^vllm:prefix_cache_queries_total(?:\{[^}]*\})? ([0-9.eE+]+)", re.MULTILINE)


@dataclass(slots=True)
class PredictionTotals:
    """Sums over the reported requests of one publisher, in tokens except for `requests` and `exact`."""

    requests: int = 0
    exact: int = 0
    predicted: int = 0
    cached: int = 0
    over: int = 0
    """Predicted but not cached."""
    under: int = 0
    """Cached but not predicted."""

    @property
    def error(self) -> float:
        """Share of the predicted or cached tokens that were wrong, 0 to 1."""
        base = max(self.predicted, self.cached)
        return (self.over + self.under) / base if base else 0.0

    @property
    def shows_false_hits(self) -> bool:
        """A quarter of what was predicted was not there, over enough requests for evictions not to explain it."""
        return self.requests >= ENOUGH_REQUESTS and 4 * self.over >= max(1, self.predicted)


class Predictions:
    """Totals per publisher. Call `keep` to drop those of publishers that are gone."""

    def __init__(self) -> None:
        self.totals: dict[str, PredictionTotals] = {}

    def record(self, report: PredictionReport, block_size: int | None = None) -> PredictionTotals:
        """Count one routed request that was answered, and return the publisher's totals.

        vLLM always computes the last token of a prompt. If the length of the prompt and the block size are known, a
        prediction of the whole prompt therefore counts as the full blocks before its last token.
        """
        predicted, cached = report.predicted_tokens, report.cached_tokens
        if report.prompt_tokens and block_size:
            predicted = min(predicted, (report.prompt_tokens - 1) // block_size * block_size)
        totals = self.totals.setdefault(report.publisher, PredictionTotals())
        totals.requests += 1
        totals.exact += predicted == cached
        totals.predicted += predicted
        totals.cached += cached
        totals.over += max(0, predicted - cached)
        totals.under += max(0, cached - predicted)
        return totals

    def keep(self, publishers: set[str]) -> None:
        """Drop the totals of every other publisher."""
        for name in self.totals.keys() - publishers:
            del self.totals[name]


def cache_counters(metrics: str) -> tuple[float, float] | None:
    """(hit tokens, queried tokens) in the text of an engine's `/metrics`, summed over its ranks; None if absent."""
    hits, queries = _HITS.findall(metrics), _QUERIES.findall(metrics)
    if not hits or not queries:
        return None
    totals = sum(map(_number, hits)), sum(map(_number, queries))
    return totals if all(map(math.isfinite, totals)) else None


def _number(text: str) -> float:
    """The number in a sample; infinite if it is none, which the pattern of a sample does not exclude."""
    try:
        return float(text)
    except ValueError:
        return math.inf
