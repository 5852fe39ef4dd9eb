"""The report of a replay as an HTML page."""

from typing import Any

from kvsync.report.charts import ENGINE_COLOURS, INK, POLICY_COLOURS, add_line, bars, base_figure, fragment
from kvsync.report.order import order_note
from kvsync.report.page import ChartBlock, Fact, Page, TableBlock
from kvsync_workload.percentiles import REPORTED

MEASURES = (("ttft_ms", "time to first token"), ("itl_ms", "between tokens"), ("e2e_ms", "whole answer"))


def build_page(report: dict[str, Any]) -> Page:
    """The page for one report of `kvsync replay`."""
    time = "virtual" if report["mode"] == "offline" else "wall"
    return Page(
        title=f"kvsync replay, {report['mode']}",
        subtitle=f"{report['requests']:,} requests of {report['trace']}, {_how(report)}, seed {report['seed']}",
        facts=[
            Fact("Hit ratio", f"{report['hit_ratio']:.1%}", f"ideal {report['ideal_hit_ratio']:.1%}"),
            Fact("Time to first token, p50", _ms(report["ttft_ms"]["p50"]), f"p99 {_ms(report['ttft_ms']['p99'])}"),
            Fact(
                "Tokens per second", f"{report['tokens_per_s']:,.0f}", f"{report['duration_s']:,.1f} s of {time} time"
            ),
            Fact("Failed", str(report["failed"]), f"{report['reissued']} issued again", report["failed"] == 0),
        ],
        charts=[_hits(report), _latency(report), _workers(report)],
        tables=[*_failure_tables(report), _latency_table(report), _worker_table(report)],
        footer=f"Lengths divided by {report['scale']}; blocks of {report['block_size']} tokens. Times are {time} time."
        f" {order_note(report['reordered'])}".rstrip(),
    )


def _how(report: dict[str, Any]) -> str:
    if report["mode"] == "live":
        return f"against {report['settings']['target']}"
    return f"{len(report['workers'])} workers, policy {report['policy']}"


def _hits(report: dict[str, Any]) -> ChartBlock:
    figure = base_figure("seconds", "hit ratio so far")
    figure.update_layout(yaxis={"tickformat": ".0%"})
    curve = report["hit_curve"]
    ideal = [(at, report["ideal_hit_ratio"]) for at in (curve[0][0], curve[-1][0])] if curve else []
    add_line(figure, "unlimited cache, whole trace", ideal, INK, dash="dash", width=1.5)
    colour = POLICY_COLOURS.get(str(report["policy"]), ENGINE_COLOURS[0])
    add_line(figure, report["policy"] or "measured", curve, colour, width=2.5)
    text = "Prompt tokens served from a prefix cache, over all prompt tokens so far."
    return ChartBlock("Hit ratio over time", text, fragment(figure))


def _latency(report: dict[str, Any]) -> ChartBlock:
    series = {text: [report[key][name] for name, _ in REPORTED] for key, text in MEASURES[:2]}
    figure = bars("", "milliseconds", [name for name, _ in REPORTED], series)
    return ChartBlock("Latency", "Time to the first token and between tokens.", fragment(figure))


def _workers(report: dict[str, Any]) -> ChartBlock:
    workers = report["workers"]
    series = {
        "computed": [row["computed_tokens"] for row in workers.values()],
        "from cache": [row["hit_tokens"] for row in workers.values()],
    }
    figure = bars("", "tokens", list(workers), series)
    text = f"The busiest worker computed {report['imbalance']} times the mean."
    return ChartBlock("Tokens by worker", text, fragment(figure))


def _failure_tables(report: dict[str, Any]) -> list[TableBlock]:
    """One table of what failed and why, if anything did."""
    if not report["failures"]:
        return []
    rows = [
        [row["message"], "-" if row["status"] is None else str(row["status"]), f"{row['count']:,}"]
        for row in report["failures"]
    ]
    text = "The first message of each kind."
    return [TableBlock("Failures", ("message", "status", "requests"), rows, text)]


def _latency_table(report: dict[str, Any]) -> TableBlock:
    columns = ("", "mean", *(name for name, _ in REPORTED), "max")
    rows = [[text, *(_ms(report[key][name]) for name in columns[1:])] for key, text in MEASURES]
    return TableBlock("Latency", columns, rows)


def _worker_table(report: dict[str, Any]) -> TableBlock:
    columns = ("requests", "prompt_tokens", "hit_tokens", "computed_tokens", "output_tokens")
    rows = [[name, *(f"{row[column]:,}" for column in columns)] for name, row in report["workers"].items()]
    return TableBlock("Workers", ("worker", *(column.replace("_", " ") for column in columns)), rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"
