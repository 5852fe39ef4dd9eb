"""Builds the page of a sweep's report."""

from typing import Any

from kvsync.plan.report import answer
from kvsync_pages import BarRow, Bars, Cell, Fact, Lines, Page, Remark, Section, Segment, Series, Table
from kvsync_pages.scales import percent
from kvsync_pages.tones import BAD, GOOD, POLICIES

LIMIT_ROWS = 40
"""Bars that are drawn; the table has all configurations."""


def build_page(report: dict[str, Any]) -> Page:
    """Build the page from a report as `kvsync.plan.report.build_report` returns it."""
    rows = report["configurations"]
    lines = answer(report)
    met = bool(report["smallest"])
    return Page(
        title="kvsync plan",
        subtitle=f"{rows[0]['requests']:,.0f} requests of {report['source']}, latency model {report['latency']}, "
        f"{len(rows)} configurations, {_seeds(report)}.",
        verdict=("objective met" if met else "objective not met") if report["objective"] else "",
        tone=GOOD if met else BAD,
        remarks=[Remark(line) for line in lines],
        headline=_headline(report),
        sections=[
            Section("Cost against time to first token", [_front(report)]),
            Section("Hit ratio", [_hits(rows)]),
            Section("Configurations", [_table(report)]),
        ],
        footer=f"Blocks of {report['block_size']} tokens, {report['max_batched_tokens']:,} tokens per step. One engine "
        f"costs {report['engine_cost_per_hour']:g} per hour. Times are virtual time. With several seeds, ratios are "
        "means, and percentiles are those of the worst seed. Regret is the share of prompt tokens that an engine held "
        "and the chosen one did not.",
    )


def _seeds(report: dict[str, Any]) -> str:
    seeds = report["seeds"]
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"


def _headline(report: dict[str, Any]) -> list[Fact]:
    rows = report["configurations"]
    facts = [
        Fact(
            f"Engines with {policy}",
            str(rows[place]["engines"]),
            f"ttft p95 {_ms(rows[place]['ttft_ms']['p95'])}, hit ratio {percent(rows[place]['hit_ratio'])}",
            GOOD,
        )
        for policy, place in sorted(report["smallest"].items(), key=lambda item: rows[item[1]]["engines"])
    ]
    best = max(rows, key=lambda row: row["hit_ratio"])
    fastest = min(rows, key=lambda row: row["ttft_ms"]["p95"] or float("inf"))
    if facts:
        return facts
    return [
        Fact("Best hit ratio", percent(best["hit_ratio"]), f"{_name(best)}; ideal {percent(best['ideal_hit_ratio'])}"),
        Fact("Best ttft p95", _ms(fastest["ttft_ms"]["p95"]), _name(fastest)),
    ]


def _front(report: dict[str, Any]) -> Lines:
    rows = report["configurations"]
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    series = [
        Series(
            policy,
            sorted(
                (row["cost_per_million_tokens"], row["ttft_ms"]["p95"])
                for row in rows
                if row["policy"] == policy and row["ttft_ms"]["p95"] is not None
            ),
            POLICIES.get(policy, ""),
        )
        for policy in policies
    ]
    front = [(rows[place]["cost_per_million_tokens"], rows[place]["ttft_ms"]["p95"]) for place in report["front"]]
    return Lines(
        "Time to first token, p95, by cost",
        [*series, Series("Pareto front", front, GOOD, 1)],
        "Each point is one configuration; no configuration is both cheaper and faster than one on the front.",
        x_title="cost per million tokens",
        y_title="milliseconds",
        dotted=True,
    )


def _hits(rows: list[dict[str, Any]]) -> Bars:
    best = sorted(rows, key=lambda row: -row["hit_ratio"])[:LIMIT_ROWS]
    bars = [
        BarRow(
            _name(row),
            [Segment(row["hit_ratio"], row["policy"], POLICIES.get(row["policy"], "s1"))],
            percent(row["hit_ratio"]),
        )
        for row in best
    ]
    return Bars("Prompt tokens found in a prefix cache", [("", bars)], legend=True)


def _table(report: dict[str, Any]) -> Table:
    front = set(report["front"])
    columns = ["configuration", "on the front", "hit ratio", "regret", "ttft p50", "ttft p95", "itl p95", "requests/s"]
    columns += ["failed", "cost per Mtok"]
    return Table(
        "All configurations",
        columns,
        [_cells(row, place in front, bool(report["objective"])) for place, row in enumerate(report["configurations"])],
        texts=("on the front",),
    )


def _cells(row: dict[str, Any], on_front: bool, with_objective: bool) -> list[str | Cell]:
    tone = (GOOD if row["meets_objective"] else BAD) if with_objective else ""
    regret = row["regret_ratio"]
    return [
        Cell(_name(row), tone),
        "yes" if on_front else "",
        percent(row["hit_ratio"]),
        "-" if regret is None else percent(regret),
        *(_ms(row["ttft_ms"][name]) for name in ("p50", "p95")),
        _ms(row["itl_ms"]["p95"]),
        f"{row['requests_per_s']:,.2f}",
        str(row["failed"]),
        f"{row['cost_per_million_tokens']:.4g}",
    ]


def _name(row: dict[str, Any]) -> str:
    parts = [row["policy"], f"{row['engines']} engines", f"{row['blocks']:,} blocks"]
    parts += [f"{tier} {row[f'{tier}_blocks']:,}" for tier in ("host", "disk") if row[f"{tier}_blocks"]]
    if "prefill_weight" in row:
        parts.append(f"weights {row['prefill_weight']:g}/{row['decode_weight']:g}")
    return ", ".join(parts)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"
