"""Prediction error: what the index said a publisher holds, against what its engine then found in its cache.

For engines without a debug endpoint (real vLLM) this is the audit there can be. A router reports, for a request it has
routed, the matched tokens it was told and the `cached_tokens` of the answer's usage. A prediction above the truth is a
false hit, below it a missed one; up to one block below is vLLM's own rule (the last token is always computed).
"""

import re
from dataclasses import dataclass

_HITS = re.compile(r"^vllm:prefix_cache_hits_total(?:\{[^}]*\})? ([0-9.eE+]+)", re.MULTILINE)
_QUERIES = re.compile(r"^vllm:prefix_cache_queries_total(?:\{[^}]*\})? ([0-9.eE+]+)", re.MULTILINE)


@dataclass(slots=True)
class PredictionTotals:
    """Sums over one publisher's reported requests; all but `requests` and `exact` in tokens."""

    requests: int = 0
    exact: int = 0
    predicted: int = 0
    cached: int = 0
    over: int = 0
    """Predicted and not cached."""
    under: int = 0
    """Cached and not predicted."""

    @property
    def error(self) -> float:
        """Share of predicted or cached tokens that were wrong, 0 to 1."""
        base = max(self.predicted, self.cached)
        return (self.over + self.under) / base if base else 0.0


class Predictions:
    """Totals by publisher, bounded: those of publishers that left go when `keep` is called."""

    def __init__(self) -> None:
        self.totals: dict[str, PredictionTotals] = {}

    def record(
        self,
        publisher: str,
        predicted_tokens: int,
        cached_tokens: int,
        prompt_tokens: int | None = None,
        block_size: int | None = None,
    ) -> PredictionTotals:
        """One routed request that was answered.

        Given the prompt's length and the block size, a prediction of the whole prompt counts as what vLLM uses of it:
        the full blocks before its last token, which is always computed.
        """
        if prompt_tokens and block_size:
            predicted_tokens = min(predicted_tokens, (prompt_tokens - 1) // block_size * block_size)
        totals = self.totals.setdefault(publisher, PredictionTotals())
        totals.requests += 1
        totals.exact += predicted_tokens == cached_tokens
        totals.predicted += predicted_tokens
        totals.cached += cached_tokens
        totals.over += max(0, predicted_tokens - cached_tokens)
        totals.under += max(0, cached_tokens - predicted_tokens)
        return totals

    def keep(self, publishers: set[str]) -> None:
        """Forget all others."""
        for name in self.totals.keys() - publishers:
            del self.totals[name]


def cache_counters(metrics: str) -> tuple[float, float] | None:
    """(hit tokens, queried tokens) of an engine's `/metrics`, summed over its ranks; None without them."""
    hits, queries = _HITS.findall(metrics), _QUERIES.findall(metrics)
    if not hits or not queries:
        return None
    return sum(map(float, hits)), sum(map(float, queries))
