"""What a benchmark run leaves behind: JSON for machines, a table and one self-contained HTML page for people."""

import json
import platform
import statistics
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment
from markupsafe import Markup
from rich.table import Table

median = statistics.median

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kvsync benchmarks: {{ document.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; width: 100% } th, td { padding: .35rem .6rem; border-bottom: 1px solid #d9e0e7 }
td + td, th + th { text-align: right } .failed { color: #b3261e; font-weight: 600 } footer { color: #5b6b7a }
</style></head><body>
<h1>Benchmarks: {{ document.title }}</h1>
<p>{{ document.rounds }} interleaved runs of each side (A B B A), CPU time, ratio of medians with a 95 % bootstrap
interval. A benchmark fails when the interval's lower bound is above its limit.</p>
{{ chart }}
<table><tr><th>job</th><th>base</th><th>head</th><th>ratio</th><th>interval</th><th>limit</th></tr>
{% for row in rows %}<tr{% if row.failed %} class="failed"{% endif %}><td>{{ row.name }}</td><td>{{ row.base }}</td>
<td>{{ row.head }}</td><td>{{ row.ratio }}</td><td>{{ row.interval }}</td><td>{{ row.limit }}</td></tr>
{% endfor %}</table>
<footer><p>{{ document.head[:12] }} against {{ document.base[:12] }} on {{ document.fingerprint.cpu }},
{{ document.fingerprint.cores }} cores, Python {{ document.fingerprint.python }}.</p></footer>
</body></html>"""


def fingerprint() -> dict[str, object]:
    """What must be equal for figures of two runs to be comparable at all."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
        cores = len(names)
    else:
        cores = 0
    return {"cpu": cpu, "cores": cores, "python": platform.python_version(), "system": platform.system()}


def format_cost(cost: float, unit: str) -> str:
    """A cost in seconds a unit of work as text, e.g. `5.2 µs/block`."""
    of = unit.removeprefix("s/")
    for factor, symbol in ((1e9, "ns"), (1e6, "µs"), (1e3, "ms")):
        if cost * factor < 1000:
            return f"{cost * factor:.3g} {symbol}/{of}"
    return f"{cost:.3g} s/{of}"


def rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a job; a job that the base does not have shows the head's figure alone."""
    compared = {comparison["name"]: comparison for comparison in document["comparisons"]}
    result = []
    for job, costs in document["samples"].items():
        unit = document["units"][job]
        row: dict[str, Any] = {"name": job, "head": format_cost(median(costs["head"]), unit), "failed": False}
        row |= {"base": "–", "ratio": "–", "interval": "–", "limit": "–"}
        if job in compared:
            found = compared[job]
            row |= {
                "base": format_cost(median(costs["base"]), unit),
                "ratio": f"{found['ratio']:.3f}",
                "interval": f"{found['low']:.3f} … {found['high']:.3f}",
                "limit": f"{found['limit']:.2f}",
                "failed": found["failed"],
            }
        result.append(row)
    return result


def table(document: dict[str, Any]) -> Table:
    """The result on a terminal."""
    result = Table(title=f"benchmarks: {document['title']}")
    for column in ("job", "base", "head", "ratio", "interval", "limit"):
        result.add_column(column, justify="left" if column == "job" else "right")
    for row in rows(document):
        cells = [row[key] for key in ("name", "base", "head", "ratio", "interval", "limit")]
        result.add_row(*cells, style="red" if row["failed"] else None)
    return result


def chart(document: dict[str, Any]) -> str:
    """Ratios with their intervals, as an HTML fragment with its script inside."""
    found = document["comparisons"]
    figure = go.Figure(
        go.Scatter(
            x=[comparison["ratio"] for comparison in found],
            y=[comparison["name"] for comparison in found],
            mode="markers",
            error_x={
                "type": "data",
                "array": [comparison["high"] - comparison["ratio"] for comparison in found],
                "arrayminus": [comparison["ratio"] - comparison["low"] for comparison in found],
            },
        )
    )
    figure.add_vline(x=1.0, line_dash="dot")
    figure.update_layout(xaxis_title="head / base (above 1: slower)", margin={"t": 10}, template="plotly_white")
    fragment: str = figure.to_html(full_html=False, include_plotlyjs=True)
    return fragment


def write(document: dict[str, Any], out: Path) -> None:
    """`report.json` and `report.html` in `out`, each written whole or not at all."""
    page = Environment(autoescape=True).from_string(PAGE)
    html = page.render(document=document, rows=rows(document), chart=Markup(chart(document)))
    for name, text in (("report.json", json.dumps(document, indent=2)), ("report.html", html)):
        partial = out / f".{name}.partial"
        partial.write_text(text)
        partial.replace(out / name)
