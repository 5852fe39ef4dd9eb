"""The charts of a page: what they show, and where everything lies in shares of the drawing's width and height.

The template draws lines as SVG that is stretched to the width of the page. Everything else, including every text, is
HTML that is placed by percentages, so that texts keep their size on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from kvsync_pages.scales import Format, Scale, plain, scale_around, scale_from_zero
from kvsync_pages.tones import BAD, GOOD, QUIET, dash_of, tone_of

WIDTH, HEIGHT = 1000, 240
"""The units of a drawing."""
PHONE_PLOT_PX, LETTER_PX = 260, 7.5
"""The width of a drawing on a phone, and of a letter: labels that fit there fit everywhere."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A label on an axis, at a share of its length in percent."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of a legend."""

    name: str
    tone: str
    dash: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment on the x axis that deserves a label."""

    at: float
    text: str
    tone: str = QUIET


@dataclass(frozen=True, slots=True)
class PlacedMark:
    """A mark with the row of its label, so that no label lies over another."""

    at: float
    text: str
    tone: str
    row: int
    leftwards: bool


def place_marks(marks: Sequence[Mark], scale: Scale) -> list[PlacedMark]:
    """Place labels from left to right, each in the first row that is free on a phone."""
    ends: list[float] = []
    placed: list[PlacedMark] = []
    for mark in sorted(marks, key=lambda mark: mark.at):
        at = scale.place(mark.at)
        width = (len(mark.text) + 1) * LETTER_PX / PHONE_PLOT_PX
        leftwards = at + width > 1.0
        left, right = (at - width, at) if leftwards else (at, at + width)
        row = next((number for number, end in enumerate(ends) if end <= left), len(ends))
        if row == len(ends):
            ends.append(0.0)
        ends[row] = right
        placed.append(PlacedMark(round(at * 100, 2), mark.text, mark.tone, row, leftwards))
    return placed


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) in order of x, joined by a line. Without a tone the series gets one by its number."""

    name: str
    points: Sequence[Sequence[float]]
    tone: str = ""
    dash: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """A series as it is drawn."""

    key: Key
    d: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines over a common x axis, usually of time. `span` shades a part of the axis."""

    kind: ClassVar[str] = "lines"

    title: str
    series: Sequence[Series]
    text: str = ""
    x_title: str = "seconds"
    y_title: str = ""
    y_format: Format = plain
    marks: Sequence[Mark] = ()
    span: tuple[float, float] | None = None
    top: float | None = None
    """The upper end of the y axis, if it is not to be chosen by the values."""
    x_logarithmic: bool = False
    """A logarithmic x axis, with a tick and a dot at each point."""
    dotted: bool = False
    """Whether each point has a dot."""

    @property
    def shown(self) -> list[Series]:
        """The series that have points."""
        return [series for series in self.series if series.points]

    @property
    def x(self) -> Scale:
        """The scale of the x axis."""
        xs = [point[0] for series in self.shown for point in series.points]
        if self.x_logarithmic:
            return Scale(min(xs), max(xs), logarithmic=True) if len(set(xs)) > 1 else Scale(1.0, 10.0)
        return Scale(0.0, max([*xs, *(mark.at for mark in self.marks)], default=0.0) or 1.0)

    @property
    def y(self) -> Scale:
        """The scale of the y axis."""
        return scale_from_zero((point[1] for series in self.shown for point in series.points), self.top)

    @property
    def keys(self) -> list[Key]:
        """The legend."""
        return [
            Key(series.name, series.tone or tone_of(number), series.dash or (0 if series.tone else dash_of(number)))
            for number, series in enumerate(self.series)
            if series.points
        ]

    @property
    def paths(self) -> list[Path]:
        """The lines in units of the drawing."""
        x, y = self.x, self.y
        paths = []
        for key, series in zip(self.keys, self.shown, strict=True):
            places = [(x.place(point[0]) * WIDTH, (1 - y.place(point[1])) * HEIGHT) for point in series.points]
            d = "M" + "L".join(f"{across:.1f} {down:.1f}" for across, down in places)
            dots = tuple((round(a / WIDTH * 100, 2), round(b / HEIGHT * 100, 2)) for a, b in places)
            paths.append(Path(key, d, dots if self.x_logarithmic or self.dotted else ()))
        return paths

    @property
    def x_ticks(self) -> list[Tick]:
        """The labels under the drawing. On a logarithmic axis, points closer than a label's width share one."""
        scale = self.x
        if not self.x_logarithmic:
            return _ticks(scale, plain)
        ticks: list[Tick] = []
        for value in sorted({point[0] for series in self.shown for point in series.points}):
            at = round(scale.place(value) * 100, 2)
            if not ticks or at - ticks[-1].at >= 14:
                ticks.append(Tick(at, plain(value)))
        return ticks

    @property
    def y_ticks(self) -> list[Tick]:
        """The labels beside the drawing, counted from its lower end."""
        return _ticks(self.y, self.y_format)

    @property
    def placed(self) -> list[PlacedMark]:
        """The marks and the rows of their labels."""
        return place_marks(self.marks, self.x)

    @property
    def shade(self) -> tuple[float, float] | None:
        """Left end and width of the shaded part, in percent."""
        if self.span is None:
            return None
        left, right = (self.x.place(end) * 100 for end in self.span)
        return round(left, 2), round(right - left, 2)

    @property
    def summary(self) -> str:
        """The chart in words."""
        ends = "; ".join(f"{series.name} ends at {self.y_format(series.points[-1][1])}" for series in self.shown)
        return f"{self.title}: {ends or 'no values'}"


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of time in one state."""

    begin: float
    end: float
    state: str
    tone: str


@dataclass(frozen=True, slots=True)
class BandRow:
    """The states of one thing over time."""

    label: str
    bands: Sequence[Band]


@dataclass(frozen=True, slots=True)
class Bands:
    """One row per thing, coloured by its state over time."""

    kind: ClassVar[str] = "bands"

    title: str
    rows: Sequence[BandRow]
    text: str = ""
    x_title: str = "seconds"
    marks: Sequence[Mark] = ()

    @property
    def x(self) -> Scale:
        """The scale of the x axis."""
        ends = [band.end for row in self.rows for band in row.bands]
        return Scale(0.0, max(ends, default=0.0) or 1.0)

    @property
    def keys(self) -> list[Key]:
        """The legend: each state once."""
        tones = {band.state: band.tone for row in self.rows for band in row.bands}
        return [Key(state, tone) for state, tone in tones.items()]

    @property
    def x_ticks(self) -> list[Tick]:
        """The labels under the drawing."""
        return _ticks(self.x, plain)

    @property
    def placed(self) -> list[PlacedMark]:
        """The marks and the rows of their labels."""
        return place_marks(self.marks, self.x)

    def stretches(self, row: BandRow) -> list[tuple[float, float, Band]]:
        """Left end and width of each band of a row, in percent."""
        scale = self.x
        ends = [(scale.place(band.begin) * 100, scale.place(band.end) * 100, band) for band in row.bands]
        return [(round(left, 3), round(right - left, 3), band) for left, right, band in ends]

    def describe(self, row: BandRow) -> str:
        """A row in words."""
        said = ", ".join(f"{band.state} from {plain(band.begin)} to {plain(band.end)}" for band in row.bands)
        return f"{row.label}: {said} {self.x_title}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar."""

    value: float
    series: str
    tone: str


@dataclass(frozen=True, slots=True)
class BarRow:
    """One bar of one or more segments, with its value in words. A bar without segments has no value."""

    label: str
    segments: Sequence[Segment]
    text: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars in groups that share one scale. `legend` explains the segments."""

    kind: ClassVar[str] = "bars"

    title: str
    groups: Sequence[tuple[str, Sequence[BarRow]]]
    text: str = ""
    legend: bool = False

    @property
    def highest(self) -> float:
        """The length of the longest bar."""
        rows = [row for _, rows in self.groups for row in rows]
        return max((sum(segment.value for segment in row.segments) for row in rows), default=0.0) or 1.0

    @property
    def keys(self) -> list[Key]:
        """The legend: each series once."""
        if not self.legend:
            return []
        segments = [segment for _, rows in self.groups for row in rows for segment in row.segments]
        return [Key(name, tone) for name, tone in {part.series: part.tone for part in segments}.items()]

    def share(self, segment: Segment) -> float:
        """The length of a segment in percent."""
        return round(segment.value / self.highest * 100, 2)


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value with its interval and its limit."""

    label: str
    value: float
    low: float
    high: float
    limit: float


@dataclass(frozen=True, slots=True)
class Intervals:
    """Values with intervals on a common scale; those whose interval lies above the limit are coloured as bad."""

    kind: ClassVar[str] = "intervals"

    title: str
    rows: Sequence[Interval]
    text: str = ""
    x_title: str = ""
    reference: float = 1.0
    keys: Sequence[Key] = field(
        default=(Key("value and interval", GOOD), Key("above the limit", BAD), Key("limit", QUIET))
    )

    @property
    def x(self) -> Scale:
        """The scale of the x axis."""
        return scale_around([self.reference, *(at for row in self.rows for at in (row.low, row.high, row.limit))])

    @property
    def x_ticks(self) -> list[Tick]:
        """The labels under the drawing."""
        return _ticks(self.x, plain)

    def place(self, value: float) -> float:
        """Where a value lies, in percent."""
        return round(self.x.place(value) * 100, 2)

    def tone(self, row: Interval) -> str:
        """The tone of a row."""
        return BAD if row.low > row.limit else GOOD


def _ticks(scale: Scale, write: Format) -> list[Tick]:
    return [Tick(round(scale.place(value) * 100, 2), write(value)) for value in scale.ticks()]
