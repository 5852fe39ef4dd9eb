"""Presents the document of a benchmark run as rows, as tables on a terminal, and as JSON.

The document holds everything that was measured. `bench_page` presents it as an HTML page.
"""

import json
from pathlib import Path
from statistics import median
from typing import Any

from bench_figures import Figure
from bench_peers import NOTE, PEERS
from rich.console import Console
from rich.markup import escape
from rich.table import Table

DASH = "–"
MEANING = {"cpu": "CPU time", "wall": "wall clock", "memory": "memory", "count": "count"}


def format_cost(cost: float, unit: str) -> str:
    """Return a cost per unit of work as text, such as `5.2 µs/block` or `57 B/block`."""
    kind, of = unit.split("/", 1)
    if kind == "B":
        return f"{cost:.3g} B/{of}"
    for factor, symbol in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if cost * factor < 1000:
            return f"{cost * factor:.3g} {symbol}/{of}"
    return f"{cost:.3g} s/{of}"


def format_number(value: float) -> str:
    """Return a number with three significant digits and separated thousands."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def job_rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per job. A job that the base cannot run shows the head alone, with the reason."""
    gate = document["gate"]
    compared = {one["name"]: one for one in gate["comparisons"]}
    trend = document["baseline"]["median_cost"]
    rows = []
    for job, costs in gate["samples"].items():
        unit, head = gate["units"][job], median(costs["head"])
        row: dict[str, Any] = {"name": job, "head": format_cost(head, unit), "failed": False, "note": ""}
        row |= {"base": DASH, "ratio": DASH, "interval": DASH, "limit": DASH, "trend": DASH}
        if job in trend:
            row["trend"] = f"{head / trend[job]:.2f}"
        if job in compared:
            found = compared[job]
            row |= {
                "base": format_cost(median(costs["base"]), unit),
                "ratio": f"{found['ratio']:.3f}",
                "interval": f"{found['low']:.3f} … {found['high']:.3f}",
                "limit": f"{found['limit']:.2f}",
                "failed": found["failed"],
            }
        elif job in gate["missing"]:
            row["note"] = f"not in the base: {gate['missing'][job]}"
        rows.append(row)
    for job, reason in gate["broken"].items():
        row = dict.fromkeys(("base", "head", "ratio", "interval", "limit", "trend"), DASH)
        rows.append(row | {"name": job, "failed": True, "note": f"could not be run: {reason}"})
    return rows


def figure_rows(group: dict[str, Any], trend: dict[str, float]) -> list[dict[str, Any]]:
    """Return one row per figure of a group."""
    rows = []
    for given in group["figures"]:
        figure = Figure(**given)
        row: dict[str, Any] = {"name": figure.name, "clock": figure.clock, "meaning": MEANING[figure.clock]}
        row["value"] = f"{format_number(figure.value)} {figure.unit}".strip()
        row["target"] = DASH
        if figure.target is not None:
            row["target"] = f"{'≥' if figure.more_is_better else '≤'} {format_number(figure.target)}"
        row["met"] = {True: "yes", False: "no", None: DASH}[figure.met]
        row["reference"] = DASH
        if figure.reference and figure.share is not None:
            row["reference"] = f"{figure.share:.2f} × {figure.reference_name} ({format_number(figure.reference)})"
        row["peers"] = PEERS.get(figure.name, "")
        recorded = trend.get(figure_key(group["name"], figure.name))
        row["trend"] = f"{figure.value / recorded:.2f}" if recorded else DASH
        rows.append(row)
    return rows


def figure_key(group: str, name: str) -> str:
    """Return the name of a figure in the baseline."""
    return f"{group}: {name}"


def job_table(document: dict[str, Any]) -> Table:
    """Return the table of the gate's comparisons."""
    table = Table(title=f"gate: {document['title']}")
    columns = ("base", "head", "ratio", "interval", "limit")
    table.add_column("job")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in job_rows(document):
        note = f"\n{escape(row['note'])}" if row["note"] else ""
        table.add_row(row["name"] + note, *[row[key] for key in columns], style="red" if row["failed"] else None)
    return table


def figure_table(group: dict[str, Any], trend: dict[str, float]) -> Table:
    """Return the table of a group's figures."""
    table = Table(title=group["title"])
    table.add_column("figure")
    for column in ("value", "target", "met"):
        table.add_column(column, justify="right")
    table.add_column("against")
    table.add_column("by", style="dim")
    for row in figure_rows(group, trend):
        against = [part for part in (row["reference"], row["peers"]) if part not in ("", DASH)]
        cells = [row["name"], row["value"], row["target"], row["met"], "; ".join(against), row["clock"]]
        table.add_row(*map(escape, cells), style="yellow" if row["met"] == "no" else None)
    return table


def show(document: dict[str, Any], console: Console) -> None:
    """Print all tables and remarks, and the verdict last."""
    console.rule(f"index core: {document['fingerprint']['index_core']}")
    for group in document["groups"]:
        if group["figures"]:
            console.print(figure_table(group, document["baseline"]["figures"]))
        if group["left_out"]:
            console.print(f"LEFT OUT: {group['title']}: {group['left_out']}", style="yellow", markup=False)
        if group["problem"]:
            console.print(f"FAILED: {group['title']}: {group['problem']}", style="red", markup=False)
    if any(group["figures"] for group in document["groups"]):
        console.print(NOTE, style="dim")
    if document["gate"]["samples"] or document["gate"]["broken"]:
        console.print(job_table(document))
    for remark in document["remarks"]:
        console.print(f"note: {remark}", style="yellow", markup=False)
    verdict = document["verdict"]
    for reason in verdict["reasons"]:
        console.print(reason, style="red", markup=False)
    console.print(f"verdict: {verdict['text']}", style="bold" if verdict["passed"] else "bold red", markup=False)


def write_whole(path: Path, text: str) -> None:
    """Write a file completely or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.replace(path)


def write_json(document: dict[str, Any], out: Path) -> Path:
    """Write `report.json` in `out` and return its path."""
    write_whole(out / "report.json", json.dumps(document, indent=1) + "\n")
    return out / "report.json"
