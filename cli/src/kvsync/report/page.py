"""Renders report pages as single files.

A page contains its styles, its charts and plotly's script, so that it opens without a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs


@dataclass(frozen=True, slots=True)
class Fact:
    """One headline number. `good` colours it: True as a success, False as a failure, None not at all."""

    label: str
    value: str
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class ChartBlock:
    """A chart with its title and one sentence that says how to read it; `html` comes from `charts.fragment`."""

    title: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table whose first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The contents of a report page, in the order in which they are shown."""

    title: str
    subtitle: str
    facts: Sequence[Fact]
    charts: Sequence[ChartBlock]
    tables: Sequence[TableBlock]
    footer: str


def render(page: Page) -> str:
    """Return the page as HTML. Everything except the charts, which plotly produced, is escaped."""
    environment = Environment(
        loader=PackageLoader("kvsync.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    charts = [(chart.title, chart.text, Markup(chart.html)) for chart in page.charts]  # noqa: S704  (made by plotly)
    script = Markup(get_plotlyjs())  # noqa: S704
    return environment.get_template("page.html.j2").render(page=page, charts=charts, script=script)
