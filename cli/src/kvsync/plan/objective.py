"""Objectives such as `--ttft-p95 500ms`, and what a sweep says about them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvsync.plan.outcome import LATENCIES, Outcome
from kvsync.plan.sweep import Configuration

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


def parse_duration_ms(text: str) -> float:
    """Milliseconds of `500ms` or `1.5s`. Raises ValueError, which says what is allowed."""
    found = _DURATION.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise ValueError(f"{text!r}: a duration such as 500ms or 1.5s is needed")
    return float(found[1]) * (1000 if found[2] == "s" else 1)


@dataclass(frozen=True, slots=True)
class Limit:
    """The largest allowed value of one percentile."""

    latency: str
    """`ttft_ms`, `itl_ms` or `e2e_ms`."""
    percentile: str
    limit_ms: float

    @property
    def name(self) -> str:
        """As the option is called, without the dashes."""
        return f"{self.latency.removesuffix('_ms')}-{self.percentile}"

    def holds(self, outcome: Outcome) -> bool:
        """Whether the outcome stays within the limit; an outcome without such a value does."""
        value = outcome[self.latency][self.percentile]
        return value is None or bool(value <= self.limit_ms)


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration with its outcome over all seeds."""

    configuration: Configuration
    outcome: Outcome
    cost: float
    """Cost per million tokens, of prompts and answers together."""
    meets: bool
    """Whether it meets the objective and completes every request."""


def make_rows(outcomes: Mapping[Configuration, Outcome], limits: Sequence[Limit], engine_cost: float) -> list[Row]:
    """Rows in the order of the outcomes; `engine_cost` is that of one engine for one hour."""
    return [
        Row(
            configuration,
            outcome,
            round(_cost(configuration, outcome, engine_cost), 6),
            not outcome["failed"] and all(limit.holds(outcome) for limit in limits),
        )
        for configuration, outcome in outcomes.items()
    ]


def _cost(configuration: Configuration, outcome: Outcome, engine_cost: float) -> float:
    hours: float = outcome["duration_s"] / 3600
    tokens: float = max(outcome["tokens"], 1)
    return configuration.engines * hours * engine_cost / tokens * 1e6


def pareto_front(rows: Sequence[Row], latency: str = "ttft_ms", percentile: str = "p95") -> list[Row]:
    """The rows that no other row beats: none is as cheap and as fast, and better in one of the two. Cheapest first."""
    if latency not in LATENCIES:
        raise ValueError(f"{latency}: must be one of {', '.join(LATENCIES)}")
    known = [row for row in rows if row.outcome[latency][percentile] is not None and not row.outcome["failed"]]
    front: list[Row] = []
    for row in sorted(known, key=lambda row: (row.cost, row.outcome[latency][percentile])):
        if not front or row.outcome[latency][percentile] < front[-1].outcome[latency][percentile]:
            front.append(row)
    return front


def smallest(rows: Iterable[Row]) -> dict[str, Row]:
    """By policy: the row with the fewest engines that meets the objective, the cheapest and fastest of equals."""
    found: dict[str, Row] = {}
    for row in sorted(rows, key=_by_size):
        if row.meets:
            found.setdefault(row.configuration.policy, row)
    return found


def _by_size(row: Row) -> tuple[float, ...]:
    configuration = row.configuration
    memory = configuration.blocks + configuration.host_blocks + configuration.disk_blocks
    return (configuration.engines, memory, row.cost, row.outcome["ttft_ms"]["p95"] or 0.0)
