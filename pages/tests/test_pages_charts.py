"""Where the parts of a chart lie: round ticks, labels that do not meet, gaps, and values outside an axis."""

import itertools

import pytest

from kvsync_pages import Band, BandRow, Bands, BarRow, Bars, Interval, Intervals, Lines, Mark, Segment, Series
from kvsync_pages.charts import LETTER_PX, PHONE_PLOT_PX, place_marks
from kvsync_pages.scales import Scale, percent, plain, round_step, scale_from_zero


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.18], [0, 0.05, 0.1, 0.15, 0.2]),
        ([1281.0], [0, 500, 1000, 1500]),
        ([], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0.0], [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([3e-7], [0, 1e-7, 2e-7, 3e-7]),
    ],
)
def test_an_axis_from_zero_ends_at_a_round_value_above_all_others(values, ticks):
    scale = scale_from_zero(values)
    assert scale.ticks() == pytest.approx(ticks)
    assert scale.high >= max(values, default=0)


@pytest.mark.parametrize("span", [0.001, 0.7, 1.0, 9.99, 10.0, 360.0, 123456.0])
def test_an_axis_has_a_few_ticks(span):
    assert 2 <= span / round_step(span) <= 5


def test_numbers_are_short():
    assert [plain(v) for v in (0, 0.25, 12.0, 1234567, 1.005)] == ["0", "0.25", "12", "1,234,567", "1"]
    assert [percent(v) for v in (0, 0.05, 0.125, 1)] == ["0 %", "5 %", "12.5 %", "100 %"]


def test_a_value_outside_an_axis_lies_on_its_end():
    assert [Scale(0, 10).place(v) for v in (-5, 5, 50)] == [0, 0.5, 1]
    assert Scale(1, 100, logarithmic=True).place(10) == pytest.approx(0.5)


def test_labels_of_marks_never_share_a_row_where_they_would_meet():
    marks = [Mark(at, text) for at, text in ((2.6, "killed"), (2.7, "noticed"), (2.8, "x"), (9.0, "started again"))]
    placed = place_marks(marks, Scale(0, 10))
    assert [mark.leftwards for mark in placed] == [False, False, False, True]
    for row in range(3):
        ends = []
        for mark in (mark for mark in placed if mark.row == row):
            width = (len(mark.text) + 1) * LETTER_PX / PHONE_PLOT_PX * 100
            ends.append((mark.at - width, mark.at) if mark.leftwards else (mark.at, mark.at + width))
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(ends))
    assert len({mark.row for mark in placed[:3]}) == 3


def test_every_series_of_a_chart_looks_different():
    chart = Lines("blocks", [Series(f"engine {n}", [(0, n), (1, n)]) for n in range(24)])
    assert len({(key.tone, key.dash) for key in chart.keys}) == 24


def test_a_series_without_points_is_not_in_the_legend():
    chart = Lines("lag", [Series("none", []), Series("one", [(0, 1), (2, 3)])])
    assert [path.key.name for path in chart.paths] == ["one"]
    assert chart.paths[0].d == "M0.0 160.0L1000.0 0.0"
    assert chart.summary == "lag: one ends at 3"
    assert Lines("lag", []).summary == "lag: no values"


def test_close_points_of_a_logarithmic_axis_share_a_label():
    chart = Lines("cost", [Series("cost", [(1, 1), (64, 2), (65, 2), (4096, 3)])], x_logarithmic=True)
    assert [tick.text for tick in chart.x_ticks] == ["1", "64", "4,096"]
    assert len(chart.paths[0].dots) == 4


def test_bands_cover_the_time_and_say_what_they_show():
    row = BandRow("engine-1", [Band(0, 2, "live", "good"), Band(2, 4, "connecting", "warn")])
    chart = Bands("trust", [row], marks=[Mark(2, "killed")])
    assert [(left, width) for left, width, _ in chart.stretches(row)] == [(0, 50), (50, 50)]
    assert chart.describe(row) == "engine-1: live from 0 to 2, connecting from 2 to 4 seconds"
    assert [key.name for key in chart.keys] == ["live", "connecting"]


def test_bars_share_one_scale_across_groups():
    long, short = Segment(40, "kv", "s1"), Segment(10, "kv", "s1")
    chart = Bars("TTFT", [("p50", [BarRow("kv", [short], "10 ms")]), ("p99", [BarRow("kv", [long], "40 ms")])])
    assert (chart.share(short), chart.share(long)) == (25, 100)
    assert Bars("nothing", [("", [BarRow("a", [], "-")])]).highest == 1


def test_only_an_interval_above_its_limit_is_bad():
    rows = [Interval("good", 1.2, 1.0, 1.4, 1.1), Interval("bad", 1.2, 1.15, 1.3, 1.1)]
    chart = Intervals("ratios", rows)
    assert [chart.tone(row) for row in rows] == ["good", "bad"]
    assert 0 < chart.place(1.0) < chart.place(1.4) < 100
