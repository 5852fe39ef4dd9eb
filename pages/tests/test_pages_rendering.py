"""A page of every part, as HTML and in a browser."""

from html.parser import HTMLParser

import pytest

from kvsync_pages import (
    Band,
    BandRow,
    Bands,
    BarRow,
    Bars,
    Cell,
    Commands,
    Details,
    Fact,
    Interval,
    Intervals,
    Lines,
    Listing,
    Mark,
    Page,
    Remark,
    Section,
    Segment,
    Series,
    Table,
    render,
)
from kvsync_testkit.browser import LOOKS

LONG = "a-name-without-a-single-place-where-a-browser-likes-to-break-the-line"


def every_part(said="value"):
    """A page that has every part, with names that are too long for a phone."""
    engines = [f"engine-{number}" for number in range(12)]
    marks = [Mark(2.6, "killed", "bad"), Mark(2.7, "noticed", "warn"), Mark(9.8, "started again", "good")]
    states = [Band(0, 2.6, "live", "good"), Band(2.6, 10, "connecting", "warn")]
    parts = [
        Lines("Hits", [Series(name, [(0, 0), (10, 9)]) for name in engines], said, marks=marks, span=(2.6, 9.8)),
        Lines("Cost", [Series("cost", [(1, 3), (4096, 5)])], x_logarithmic=True, y_title="microseconds"),
        Lines("Empty", []),
        Bands("Trust", [BandRow(name, states) for name in [*engines[:2], LONG]], marks=marks),
        Bars("Latency", [("p50", [BarRow(LONG, [Segment(3, "a", "s1"), Segment(4, "b", "s2")], "7 ms")])], legend=True),
        Bars("Nothing", [("", [BarRow("none", [], "-")])]),
        Intervals("Ratios", [Interval(LONG, 1.3, 1.2, 1.4, 1.1), Interval("short", 1, 0.9, 1.1, 1.2)]),
        Table(
            "Results", ("name", "hits", "a long column"), [[LONG, Cell("3", "bad", note=said), Cell(said, href="#a")]]
        ),
        Listing([Cell(f"invariant {number} kept", "good") for number in range(20)]),
        Details("Proof", LONG * 3, "good"),
        Commands([("Ask the index", f"kvsync match --index http://127.1.0.4:8090 '{said}'")]),
        Remark(said, "warn"),
    ]
    facts = [Fact("label", said, said, "good"), Fact("label", "7")]
    return Page(
        "A page", said, "passed", "good", [Remark(said)], facts, facts, [Section("All", parts, said, anchor="a")], said
    )


def test_everything_is_escaped_and_the_same_page_gives_the_same_bytes():
    html = render(every_part("<script>alert(1)</script>"))
    assert "<script" not in html
    assert html == render(every_part("<script>alert(1)</script>"))


def test_every_element_is_closed():
    void = {"meta", "link", "path"}
    stack = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag, _attributes):
            if tag not in void:
                stack.append(tag)

        def handle_endtag(self, tag):
            if tag not in void:
                assert stack.pop() == tag

    Parser().feed(render(every_part()))
    assert stack == []


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_browser_finds_nothing_wrong(browser, tmp_path, look):
    path = tmp_path / "page.html"
    path.write_text(render(every_part()))
    with browser.open(path, look) as page:
        assert page.problems() == []
