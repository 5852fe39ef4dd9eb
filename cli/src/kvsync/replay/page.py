"""Builds the page of a replay's report."""

from typing import Any

from kvsync.report.order import order_note
from kvsync_pages import BarRow, Bars, Cell, Fact, Lines, Page, Section, Segment, Series, Table
from kvsync_pages.scales import percent
from kvsync_pages.tones import BAD, GOOD, INK, POLICIES
from kvsync_workload.percentiles import REPORTED

MEASURES = (("ttft_ms", "time to first token"), ("itl_ms", "between tokens"), ("e2e_ms", "whole answer"))
DRAWN = (("ttft_ms", "time to first token", "s3"), ("itl_ms", "between tokens", "s2"))
COMPUTED, CACHED = "s3", "s1"


def build_page(report: dict[str, Any]) -> Page:
    """Build the page from a report as `kvsync.replay.report.build_report` returns it."""
    time = "virtual" if report["mode"] == "offline" else "wall"
    failed = report["failed"]
    return Page(
        title=f"kvsync replay, {report['mode']}",
        subtitle=f"{report['requests']:,} requests of {report['trace']}, {_how(report)}, seed {report['seed']}.",
        headline=[
            Fact("Hit ratio", percent(report["hit_ratio"]), f"unlimited cache {percent(report['ideal_hit_ratio'])}"),
            Fact("Time to first token, p50", _ms(report["ttft_ms"]["p50"]), f"p99 {_ms(report['ttft_ms']['p99'])}"),
            Fact(
                "Tokens per second", f"{report['tokens_per_s']:,.0f}", f"{report['duration_s']:,.1f} s of {time} time"
            ),
            Fact("Failed", str(failed), f"{report['reissued']} issued again", BAD if failed else GOOD),
        ],
        sections=[
            *_failures(report),
            Section("Hit ratio", [_hits(report)]),
            Section("Latency", [_latency(report), _latency_table(report)]),
            Section("Workers", [_workers(report), _worker_table(report)]),
        ],
        footer=f"Lengths divided by {report['scale']}; blocks of {report['block_size']} tokens. Times are {time} time."
        f" {order_note(report['reordered'])}".rstrip(),
    )


def _how(report: dict[str, Any]) -> str:
    if report["mode"] == "live":
        return f"against {report['settings']['target']}"
    return f"{len(report['workers'])} workers, policy {report['policy']}"


def _hits(report: dict[str, Any]) -> Lines:
    curve = report["hit_curve"]
    policy = report["policy"] or "measured"
    ideal = [(at, report["ideal_hit_ratio"]) for at in (0.0, curve[-1][0])] if curve else []
    return Lines(
        "Hit ratio over time",
        [Series(policy, curve, POLICIES.get(policy, "s1")), Series("unlimited cache, whole trace", ideal, INK, 1)],
        "Prompt tokens served from a prefix cache, over all prompt tokens so far.",
        y_title="hit ratio so far",
        y_format=percent,
    )


def _latency(report: dict[str, Any]) -> Bars:
    groups = []
    for name, _ in REPORTED:
        values = [(text, tone, report[key][name]) for key, text, tone in DRAWN]
        rows = [BarRow(text, _segments((text, value, tone)), _ms(value)) for text, tone, value in values]
        groups.append((name, rows))
    return Bars("Times to the first token and between tokens", groups)


def _segments(*parts: tuple[str, float | None, str]) -> list[Segment]:
    return [Segment(value, name, tone) for name, value, tone in parts if value]


def _workers(report: dict[str, Any]) -> Bars:
    rows = [
        BarRow(
            name,
            _segments(("from cache", row["hit_tokens"], CACHED), ("computed", row["computed_tokens"], COMPUTED)),
            f"{row['hit_tokens'] + row['computed_tokens']:,}",
        )
        for name, row in report["workers"].items()
    ]
    text = f"The busiest worker computed {report['imbalance']} times the mean."
    return Bars("Prompt tokens by worker", [("", rows)], text, legend=True)


def _failures(report: dict[str, Any]) -> list[Section]:
    """One section about what failed and why, if anything did."""
    if not report["failures"]:
        return []
    rows = [
        (Cell(row["message"], BAD), "-" if row["status"] is None else str(row["status"]), f"{row['count']:,}")
        for row in report["failures"]
    ]
    table = Table("", ("message", "status", "requests"), rows, "The first message of each kind.")
    return [Section("Failures", [table])]


def _latency_table(report: dict[str, Any]) -> Table:
    columns = ("time", "mean", *(name for name, _ in REPORTED), "max")
    rows = [[text, *(_ms(report[key][name]) for name in columns[1:])] for key, text in MEASURES]
    return Table("All measures", columns, rows)


def _worker_table(report: dict[str, Any]) -> Table:
    columns = ("requests", "prompt_tokens", "hit_tokens", "computed_tokens", "output_tokens")
    rows = [[name, *(f"{row[column]:,}" for column in columns)] for name, row in report["workers"].items()]
    return Table("Totals", ("worker", *(column.replace("_", " ") for column in columns)), rows)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"
