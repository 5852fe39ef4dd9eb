"""The look of every page that kvsync writes: reports of demos, replays, soak runs, benchmarks and chaos experiments.

A report is turned into a `Page` of sections, and `render` makes one HTML file of it. The file has no script and loads
nothing, follows the reader's colour scheme, and fits a phone. The same page gives the same bytes.

- `page`: pages, sections, tables and texts, and their rendering
- `charts`: lines over time, bands of states, bars, and ratios with intervals
- `scales`: ticks and numbers
- `tones`: the colours, by meaning and by number
"""

from kvsync_pages.charts import Band, BandRow, Bands, BarRow, Bars, Interval, Intervals, Lines, Mark, Segment, Series
from kvsync_pages.page import Cell, Commands, Details, Fact, Listing, Page, Remark, Section, Table, render

__all__ = [
    "Band",
    "BandRow",
    "Bands",
    "BarRow",
    "Bars",
    "Cell",
    "Commands",
    "Details",
    "Fact",
    "Interval",
    "Intervals",
    "Lines",
    "Listing",
    "Mark",
    "Page",
    "Remark",
    "Section",
    "Segment",
    "Series",
    "Table",
    "render",
]
