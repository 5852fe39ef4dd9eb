"""Renders the benchmark report as one HTML page that contains its tables, charts and scripts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from bench_figures import Figure
from bench_peers import NOTE
from bench_report import figure_rows, job_rows, write_whole
from jinja2 import Environment
from markupsafe import Markup

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kvsync benchmarks: {{ document.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733 }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 1.5rem }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #d9e0e7; text-align: right; vertical-align: top }
th:first-child, td:first-child, .text { text-align: left } .note { color: #5b6b7a; font-size: .85em }
.failed, .no { color: #b3261e; font-weight: 600 } .yes { color: #1b7f4b }
.remark { background: #fff4d6; padding: .4rem .8rem }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(24rem, 1fr)); gap: 1rem }
.charts > div { min-width: 0 } td { white-space: nowrap } td.text, td:first-child { white-space: normal }
footer { color: #5b6b7a }
</style></head><body>
<h1>Benchmarks: {{ document.title }}</h1>
<p><b class="{{ 'yes' if document.verdict.passed else 'failed' }}">{{ document.verdict.text }}</b></p>
{% for reason in document.verdict.reasons %}<p class="failed">{{ reason }}</p>{% endfor %}
{% for remark in document.remarks %}<p class="remark">{{ remark }}</p>{% endfor %}
{% if jobs %}<h2>Gate</h2>
<p>{{ document.rounds }} interleaved runs of each side (A B B A), each a process; CPU time or memory; ratio of medians
with a 95 % bootstrap interval. A job fails if the lower bound of the interval exceeds its limit, which is 1.10, or
three times the spread between two runs of the same revision if that is larger.
{% if document.gate.canary %}{{ document.gate.canary.text }}{% endif %}</p>
{{ ratios }}
<table><tr><th>job</th><th>base</th><th>head</th><th>head / base</th><th>interval</th><th>limit</th>
<th>head / baseline</th></tr>
{% for row in jobs %}<tr{% if row.failed %} class="failed"{% endif %}><td>{{ row.name }}
{% if row.note %}<div class="note">{{ row.note }}</div>{% endif %}</td><td>{{ row.base }}</td><td>{{ row.head }}</td>
<td>{{ row.ratio }}</td><td>{{ row.interval }}</td><td>{{ row.limit }}</td><td>{{ row.trend }}</td></tr>
{% endfor %}</table>{% endif %}
{% if series %}<h2>Figures</h2>
<div class="charts">{% for chart in series %}<div>{{ chart }}</div>{% endfor %}</div>{% endif %}
{% for group, rows in groups %}<h3>{{ group.title }}</h3>
{% if group.left_out %}<p class="remark">Left out: {{ group.left_out }}</p>{% endif %}
{% if group.problem %}<p class="failed">{{ group.problem }}</p>{% endif %}
{% if rows %}<table><tr><th>figure</th><th>value</th><th>target</th><th>met</th><th>/ baseline</th>
<th class="text">reference in the same run</th><th class="text">other systems, elsewhere</th><th>measured in</th></tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td>{{ row.value }}</td><td>{{ row.target }}</td>
<td class="{{ row.met }}">{{ row.met }}</td><td>{{ row.trend }}</td><td class="text">{{ row.reference }}</td>
<td class="text note">{{ row.peers }}</td><td class="note">{{ row.meaning }}</td></tr>
{% endfor %}</table>
<p class="note">Load at the start: {{ "%.2f"|format(group.load) }} runnable processes per processor.</p>{% endif %}
{% endfor %}
<footer><p>{{ note }}</p><p>{{ document.head }}{% if document.base %} against {{ document.base[:12] }}{% endif %};
index core: {{ document.fingerprint.index_core }}; {{ document.fingerprint.cpu }}, {{ document.fingerprint.cores }}
cores, {{ document.fingerprint.memory_gib }} GiB, {{ document.fingerprint.system }}, Python
{{ document.fingerprint.python }}; {{ "%.0f"|format(document.duration_s) }} s.</p></footer>
</body></html>"""

CONFIG = {"displayModeBar": False, "responsive": True}
LEGEND = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"}


def draw_ratios(comparisons: list[dict[str, Any]]) -> go.Figure:
    """Draw the ratios with their intervals and limits."""
    names = [one["name"] for one in comparisons]
    figure = go.Figure(
        [
            go.Scatter(
                x=[one["ratio"] for one in comparisons],
                y=names,
                mode="markers",
                name="head / base",
                error_x={
                    "type": "data",
                    "array": [one["high"] - one["ratio"] for one in comparisons],
                    "arrayminus": [one["ratio"] - one["low"] for one in comparisons],
                },
            ),
            go.Scatter(
                x=[one["limit"] for one in comparisons],
                y=names,
                mode="markers",
                name="limit",
                marker={"symbol": "line-ns-open", "size": 12, "color": "#b3261e"},
            ),
        ]
    )
    figure.add_vline(x=1.0, line_dash="dot")
    height = 120 + 24 * len(comparisons)
    return figure.update_layout(
        xaxis_title="above 1: the head costs more", height=height, yaxis_autorange="reversed", legend=LEGEND
    )


def draw_series(figures: list[Figure]) -> go.Figure:
    """Draw one series over its axis, with its reference and its target."""
    at = [figure.at for figure in figures]
    lines = [("measured", [figure.value for figure in figures], None)]
    if all(figure.reference for figure in figures):
        lines.append((figures[0].reference_name, [figure.reference for figure in figures], "dot"))
    if all(figure.target is not None for figure in figures):
        lines.append(("target", [figure.target for figure in figures], "dash"))
    chart = go.Figure([go.Scatter(x=at, y=y, name=name, line={"dash": dash}) for name, y, dash in lines])
    chart.update_xaxes(type="log", tickvals=at)
    chart.update_yaxes(rangemode="tozero", title=figures[0].unit)
    return chart.update_layout(title=figures[0].series, height=340, showlegend=len(lines) > 1, legend=LEGEND)


def collect_series(groups: list[dict[str, Any]]) -> Iterator[list[Figure]]:
    """Yield the series that have two figures or more."""
    found: dict[str, list[Figure]] = {}
    for group in groups:
        for given in group["figures"]:
            figure = Figure(**given)
            if figure.series and figure.at is not None:
                found.setdefault(figure.series, []).append(figure)
    yield from (figures for figures in found.values() if len(figures) > 1)


def render(document: dict[str, Any]) -> str:
    """Return the page as HTML."""
    charts = []
    if document["gate"]["comparisons"]:
        charts.append(draw_ratios(document["gate"]["comparisons"]))
    ratios = len(charts)
    charts += [draw_series(figures) for figures in collect_series(document["groups"])]
    fragments = []
    for number, chart in enumerate(charts):
        chart.update_layout(template="plotly_white", margin={"t": 70 if number >= ratios else 30, "r": 10})
        html = chart.to_html(full_html=False, include_plotlyjs=number == 0, div_id=f"chart-{number}", config=CONFIG)
        fragments.append(Markup(html))
    trend = document["baseline"]["figures"]
    page = Environment(autoescape=True).from_string(PAGE)
    return page.render(
        document=document,
        jobs=job_rows(document),
        ratios=Markup("").join(fragments[:ratios]),
        series=fragments[ratios:],
        groups=[(group, figure_rows(group, trend)) for group in document["groups"]],
        note=NOTE,
    )


def write_page(document: dict[str, Any], out: Path) -> Path:
    """Write `report.html` in `out` and return its path."""
    write_whole(out / "report.html", render(document))
    return out / "report.html"
