"""Pages: a headline, facts and sections, and their rendering to one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, TypeAlias

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from kvsync_pages.charts import Bands, Bars, Intervals, Lines
from kvsync_pages.tones import QUIET


@dataclass(frozen=True, slots=True)
class Fact:
    """A number with its name, and a sentence that explains it."""

    label: str
    value: str
    note: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table that has a tone, leads to another section, or carries a note in small print."""

    text: str
    tone: str = ""
    href: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column and those in `texts` are aligned as text, the others as numbers."""

    kind: ClassVar[str] = "table"

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    text: str = ""
    texts: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """Short items side by side."""

    kind: ClassVar[str] = "listing"

    items: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Details:
    """Text that is shown as it is when the reader opens it."""

    kind: ClassVar[str] = "details"

    summary: str
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands to copy, each with what it does."""

    kind: ClassVar[str] = "commands"

    items: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence that deserves attention."""

    kind: ClassVar[str] = "remark"

    text: str
    tone: str = QUIET


Part: TypeAlias = Lines | Bands | Bars | Intervals | Table | Listing | Details | Commands | Remark


@dataclass(frozen=True, slots=True)
class Section:
    """A card. `verdict` is shown beside the title; `anchor` is the target of links."""

    title: str
    parts: Sequence[Part]
    text: str = ""
    verdict: str = ""
    tone: str = ""
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """The contents of a page, in the order in which they are shown.

    The headline is what a reader should take away: a few facts, shown large.
    """

    title: str
    subtitle: str
    verdict: str = ""
    tone: str = ""
    remarks: Sequence[Remark] = ()
    headline: Sequence[Fact] = ()
    facts: Sequence[Fact] = ()
    sections: Sequence[Section] = ()
    footer: str = ""


def render(page: Page) -> str:
    """Return the page as HTML. Everything in it is escaped."""
    return _environment().get_template("page.html.j2").render(page=page) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kvsync_pages"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["text"] = lambda value: isinstance(value, str)
    return environment
