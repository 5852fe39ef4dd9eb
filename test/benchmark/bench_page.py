"""Builds the page of a benchmark report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench_figures import Figure
from bench_peers import NOTE
from bench_report import figure_rows, job_rows, write_whole

from kvsync_pages import Cell, Interval, Intervals, Lines, Page, Remark, Section, Series, Table, render
from kvsync_pages.tones import BAD, GOOD, WARN

JOB_COLUMNS = ("job", "base", "head", "head / base", "interval", "limit", "head / baseline")
FIGURE_COLUMNS = (
    "figure",
    "value",
    "target",
    "met",
    "/ baseline",
    "reference in the same run",
    "other systems, elsewhere",
    "measured in",
)


def build_page(document: dict[str, Any]) -> Page:
    """Build the page: the verdict, the gate, the series as charts, and a table per group of figures."""
    verdict = document["verdict"]
    passed = verdict["passed"]
    sections = [_gate(document)] if job_rows(document) else []
    series = [draw_series(figures) for figures in collect_series(document["groups"])]
    if series:
        sections.append(Section("Figures", series))
    sections += [_group(group, document["baseline"]["figures"]) for group in document["groups"]]
    return Page(
        title=f"kvsync benchmarks: {document['title']}",
        subtitle=_describe_machine(document),
        verdict=verdict["text"],
        tone=GOOD if passed else BAD,
        remarks=[Remark(reason, BAD) for reason in verdict["reasons"]]
        + [Remark(remark, WARN) for remark in document["remarks"]],
        sections=sections,
        footer=NOTE,
    )


def _describe_machine(document: dict[str, Any]) -> str:
    machine = document["fingerprint"]
    against = f" against {document['base'][:12]}" if document["base"] else ""
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"
    return (
        f"{document['head']}{against}; index core: {machine['index_core']}; {where}, Python {machine['python']}; "
        f"{document['duration_s']:.0f} s."
    )


def _gate(document: dict[str, Any]) -> Section:
    gate = document["gate"]
    rows = [
        (
            Cell(row["name"], BAD if row["failed"] else "", note=row["note"]),
            *(row[key] for key in ("base", "head", "ratio", "interval", "limit", "trend")),
        )
        for row in job_rows(document)
    ]
    canary = f" {gate['canary']['text']}" if gate["canary"] else ""
    text = (
        f"{document['rounds']} interleaved runs of each side (A B B A), each a process; CPU time or memory; ratio of "
        "medians with a 95 % bootstrap interval. A job fails if the lower bound of the interval exceeds its limit, "
        "which is 1.10, or three times the spread between two runs of the same revision if that is larger." + canary
    )
    ratios = [draw_ratios(gate["comparisons"])] if gate["comparisons"] else []
    return Section("Gate", [*ratios, Table("Jobs", JOB_COLUMNS, rows)], text)


def draw_ratios(comparisons: list[dict[str, Any]]) -> Intervals:
    """Draw the ratios with their intervals and limits."""
    rows = [Interval(one["name"], one["ratio"], one["low"], one["high"], one["limit"]) for one in comparisons]
    return Intervals("Ratios", rows, "Above 1, the head costs more than the base.", "head / base")


def draw_series(figures: list[Figure]) -> Lines:
    """Draw one series over its axis, with its reference and its target."""
    first = figures[0]
    series = [Series("measured", [(figure.at, figure.value) for figure in figures], "s1")]
    if all(figure.reference for figure in figures):
        series.append(Series(first.reference_name, [(figure.at, figure.reference) for figure in figures], "s3", 2))
    if all(figure.target is not None for figure in figures):
        series.append(Series("target", [(figure.at, figure.target) for figure in figures], "s2", 1))
    return Lines(first.series, series, x_title="", y_title=first.unit, x_logarithmic=True)


def collect_series(groups: list[dict[str, Any]]) -> Iterator[list[Figure]]:
    """Yield the series that have two figures or more, each in order of its axis."""
    found: dict[str, list[Figure]] = {}
    for group in groups:
        for given in group["figures"]:
            figure = Figure(**given)
            if figure.series and figure.at is not None:
                found.setdefault(figure.series, []).append(figure)
    yield from (sorted(figures, key=lambda figure: figure.at) for figures in found.values() if len(figures) > 1)


def _group(group: dict[str, Any], trend: dict[str, float]) -> Section:
    parts: list[Remark | Table] = []
    if group["left_out"]:
        parts.append(Remark(f"Left out: {group['left_out']}", WARN))
    if group["problem"]:
        parts.append(Remark(group["problem"], BAD))
    rows = [
        (
            row["name"],
            row["value"],
            row["target"],
            Cell(row["met"], {"yes": GOOD, "no": BAD}.get(row["met"], "")),
            *(row[key] for key in ("trend", "reference", "peers", "meaning")),
        )
        for row in figure_rows(group, trend)
    ]
    if not rows:
        return Section(group["title"], parts)
    load = f"Load at the start: {group['load']:.2f} runnable processes per processor."
    return Section(group["title"], [*parts, Table("", FIGURE_COLUMNS, rows, texts=FIGURE_COLUMNS[5:])], load)


def write_page(document: dict[str, Any], out: Path) -> Path:
    """Write `report.html` in `out` and return its path."""
    write_whole(out / "report.html", render(build_page(document)))
    return out / "report.html"
