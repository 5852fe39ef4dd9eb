"""Builds the page of a demo's report.

The page is computed from the document of `report.json` alone, so that a stored report can be rendered again.
"""

from typing import Any

from kvsync.report.charts import (
    ENGINE_COLOURS,
    INK,
    POLICY_COLOURS,
    Figure,
    add_line,
    bars,
    base_figure,
    fragment,
    mark_time,
)
from kvsync.report.order import order_note
from kvsync.report.page import ChartBlock, Fact, Page, TableBlock

PERCENTILES = ("p50", "p95", "p99")


def build_page(report: dict[str, Any]) -> Page:
    """Build the page from a report as `kvsync.demo.report.build_report` returns it."""
    policies: dict[str, dict[str, Any]] = report["policies"]
    shown = [_hits(policies), _blocks(report, policies), _ttft(policies), _lag(policies)]
    verdict = "Every check passed." if report["passed"] else "Failed: " + "; ".join(report["reasons"]) + "."
    return Page(
        title="kvsync demo",
        subtitle=(
            f"{report['requests']:,} requests of {report['trace'].rsplit('/', 1)[-1]} on {report['engines']} mock "
            f"engines of {report['blocks_per_engine']:,} blocks, seed {report['seed']}. {verdict}"
        ),
        facts=_facts(report, policies),
        charts=shown,
        tables=[_results(report, policies), _moments(policies)],
        footer=_footer(report),
    )


def _facts(report: dict[str, Any], policies: dict[str, dict[str, Any]]) -> list[Fact]:
    facts = [
        Fact(f"Hit ratio, {name}", f"{policy['hit_ratio']:.1%}", f"ideal {report['ideal_hit_ratio']:.1%}")
        for name, policy in policies.items()
    ]
    audit = report["audit"]
    clean = audit["differences"] == 0 and not audit["failed"]
    facts.append(
        Fact(
            "Audit differences",
            f"{audit['differences']}",
            f"{audit['blocks']:,} blocks of {audit['publishers']} engines compared",
            clean,
        )
    )
    restart = report["restart"]
    if restart["performed"] and restart["detected_s"] is not None:
        note = f"{restart['publisher']} was killed; the index rebuilt {restart['blocks_after']:,} blocks"
        facts.append(Fact("Restart noticed after", f"{restart['detected_s']:.2f} s", note, restart["rebuilt"]))
    if report["host_blocks_per_engine"]:
        brought = sum(policy["tier_hit_tokens"] for policy in policies.values())
        facts.append(
            Fact("Tokens from the host tier", f"{brought:,}", f"{report['host_blocks_per_engine']:,} blocks per engine")
        )
    for name, policy in policies.items():
        predictions = policy["predictions"]
        if predictions["requests"]:
            note = f"{name}: {predictions['requests']:,} predictions compared with the engines' cached tokens"
            facts.append(Fact("Exact predictions", f"{predictions['exact'] / predictions['requests']:.1%}", note))
    failed = sum(policy["failed"] for policy in policies.values())
    reissued = sum(policy["reissued"] for policy in policies.values())
    facts.append(Fact("Failed requests", str(failed), f"{reissued} reissued after the kill", failed == 0))
    return facts


def _hits(policies: dict[str, dict[str, Any]]) -> ChartBlock:
    figure = base_figure("seconds since the replay began", "hit ratio so far")
    figure.update_layout(yaxis={"tickformat": ".0%"})
    longest = max(policies.values(), key=lambda policy: policy["duration_s"])
    add_line(figure, "ideal (unlimited cache)", longest["ideal_curve"], INK, dash="dash", width=1.5)
    for name, policy in policies.items():
        add_line(figure, name, policy["hit_curve"], POLICY_COLOURS.get(name, INK), width=2.5)
    _mark_restart(figure, policies)
    text = "Share of all prompt tokens so far that a prefix cache served, as reported by the engines."
    return ChartBlock("Hit ratio over time, by policy", text, fragment(figure))


def _blocks(report: dict[str, Any], policies: dict[str, dict[str, Any]]) -> ChartBlock:
    name = report["restart"].get("policy") or list(policies)[-1]
    figure = base_figure("seconds since the replay began", "blocks in the index")
    for number, (publisher, curve) in enumerate(policies[name]["publishers"].items()):
        colour = ENGINE_COLOURS[number % len(ENGINE_COLOURS)]
        add_line(figure, publisher, list(zip(curve["at_s"], curve["blocks"], strict=True)), colour)
    _mark_restart(figure, policies)
    text = (
        f"Blocks that the index held for each engine during the {name} run. It drops the blocks of the killed engine "
        "when a new process answers, and rebuilds them."
    )
    return ChartBlock("Blocks per engine", text, fragment(figure))


def _ttft(policies: dict[str, dict[str, Any]]) -> ChartBlock:
    series = {name: [policy["ttft_ms"][key] for key in PERCENTILES] for name, policy in policies.items()}
    figure = bars("", "milliseconds", PERCENTILES, series)
    text = (
        "Time from sending a request to receiving its first token, measured by the client at the speed of the replay."
    )
    return ChartBlock("Time to first token", text, fragment(figure))


def _lag(policies: dict[str, dict[str, Any]]) -> ChartBlock:
    figure = base_figure("seconds since the replay began", "batches behind, summed over engines")
    for name, policy in policies.items():
        totals: dict[float, float] = {}
        for curve in policy["publishers"].values():
            for at_s, lag in zip(curve["at_s"], curve["lag"], strict=True):
                totals[at_s] = totals.get(at_s, 0.0) + (lag or 0.0)
        add_line(figure, name, sorted(totals.items()), POLICY_COLOURS.get(name, INK))
    text = "; ".join(
        f"{name}: an event was applied {_ms(policy['event_lag_ms']['p50'])} after its creation at p50 and "
        f"{_ms(policy['event_lag_ms']['p99'])} at p99"
        for name, policy in policies.items()
    )
    return ChartBlock("Event lag", text + ".", fragment(figure))


def _mark_restart(figure: Figure, policies: dict[str, dict[str, Any]]) -> None:
    for policy in policies.values():
        for at_s, text in policy["moments"]:
            if " killed" in text:
                mark_time(figure, at_s, "killed")
            elif text.endswith("started again"):
                mark_time(figure, at_s, "restarted", "#b7791f")


def _results(report: dict[str, Any], policies: dict[str, dict[str, Any]]) -> TableBlock:
    rows = [
        [
            name,
            f"{policy['hit_ratio']:.2%}",
            f"{policy['hit_ratio'] / report['ideal_hit_ratio']:.0%}" if report["ideal_hit_ratio"] else "-",
            *(_ms(policy["ttft_ms"][key]) for key in PERCENTILES),
            str(policy["failed"]),
            str(policy["reissued"]),
            str(policy["audit"]["differences"]),
        ]
        for name, policy in policies.items()
    ]
    columns = (
        "policy",
        "hit ratio",
        "of ideal",
        "TTFT p50",
        "p95",
        "p99",
        "failed",
        "reissued",
        "audit differences",
    )
    return TableBlock("Results", columns, rows)


def _moments(policies: dict[str, dict[str, Any]]) -> TableBlock:
    rows = [(name, f"{at_s:.2f} s", text) for name, policy in policies.items() for at_s, text in policy["moments"]]
    return TableBlock("Timeline", ("policy", "time", "event"), rows)


def _footer(report: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in report["versions"].items() if value)
    order = order_note(report["reordered"])
    return (
        f"Lengths are those of the trace divided by {report['scale']} (one 512-token block of the trace is one "
        f"{report['block_size']}-token engine block); requests arrive {report['speed']:g} times as fast as in the "
        f"trace. {order}{' ' if order else ''}{versions}."
    )


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
