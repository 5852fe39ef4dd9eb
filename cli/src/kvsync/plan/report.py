"""The report of a sweep: the same bytes for the same trace, settings and seeds, wherever the replays ran."""

from collections.abc import Sequence
from typing import Any

from kvsync.plan.objective import Limit, Row, pareto_front, smallest
from kvsync.plan.sweep import Fixed, Sweep
from kvsync.report.versions import collect_versions
from kvsync_workload.arrivals import Arrivals


def build_report(
    source: str,
    sweep: Sweep,
    fixed: Fixed,
    arrivals: Arrivals,
    limits: Sequence[Limit],
    engine_cost: float,
    rows: Sequence[Row],
) -> dict[str, Any]:
    """JSON values under stable keys; `front` and `smallest` name rows by their positions in `configurations`."""
    places = {id(row): place for place, row in enumerate(rows)}
    return {
        "versions": collect_versions("auto"),
        "source": source,
        "arrivals": arrivals.describe(),
        "block_size": fixed.block_size,
        "max_batched_tokens": fixed.max_batched_tokens,
        "latency": fixed.latency,
        "seeds": list(sweep.seeds),
        "engine_cost_per_hour": engine_cost,
        "objective": {limit.name: limit.limit_ms for limit in limits},
        "configurations": [_row(row) for row in rows],
        "front": [places[id(row)] for row in pareto_front(rows)],
        "smallest": {policy: places[id(row)] for policy, row in smallest(rows).items()} if limits else {},
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        **row.configuration.describe(),
        **row.outcome,
        "cost_per_million_tokens": row.cost,
        "meets_objective": row.meets,
    }


def answer(report: dict[str, Any]) -> list[str]:
    """The decision in sentences: which policy needs how many engines."""
    if not report["objective"]:
        return ["No objective was given; --ttft-p95 500ms asks for the smallest number of engines that meets it."]
    wanted = " and ".join(f"{name} up to {limit:g} ms" for name, limit in report["objective"].items())
    rows, found = report["configurations"], report["smallest"]
    lines = [
        f"{policy}: {_engines(rows[place]['engines'])} for {wanted} ({_memory(rows[place])}), "
        f"hit ratio {rows[place]['hit_ratio']:.1%}, ttft p95 {rows[place]['ttft_ms']['p95']:,.0f} ms."
        for policy, place in sorted(found.items(), key=lambda item: (rows[item[1]]["engines"], item[0]))
    ]
    missing = sorted({row["policy"] for row in rows} - found.keys())
    lines += [f"{policy}: no configuration of this sweep meets {wanted}." for policy in missing]
    return lines


def _engines(count: int) -> str:
    return "1 engine" if count == 1 else f"{count} engines"


def _memory(row: dict[str, Any]) -> str:
    parts = [f"{row['blocks']:,} blocks each"]
    parts += [
        f"{row[key]:,} on the {name}" for key, name in (("host_blocks", "host"), ("disk_blocks", "disk")) if row[key]
    ]
    return ", ".join(parts)
