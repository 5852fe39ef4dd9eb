"""The self-contained page: template, styles, plotly's script and charts in one file."""

from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup
from plotly.offline import get_plotlyjs


@dataclass(frozen=True, slots=True)
class Fact:
    """A number that says most, with what it is."""

    label: str
    value: str
    note: str = ""
    good: bool | None = None


@dataclass(frozen=True, slots=True)
class ChartBlock:
    """A chart with its title and one sentence on how to read it."""

    title: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class TableBlock:
    """A table; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Everything a report page shows, in order."""

    title: str
    subtitle: str
    facts: Sequence[Fact]
    charts: Sequence[ChartBlock]
    tables: Sequence[TableBlock]
    footer: str


def render(page: Page) -> str:
    """The page as HTML text; everything but our own charts is escaped."""
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
