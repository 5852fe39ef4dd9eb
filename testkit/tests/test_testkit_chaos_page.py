"""The report for people: complete, self-contained, safe to open, and readable in a browser."""

import re

import pytest

from kvsync_pages import render
from kvsync_testkit.browser import LOOKS
from kvsync_testkit.chaos.page import build_charts, build_page, write_page
from kvsync_testkit.chaos.report import as_document
from kvsync_testkit.chaos.verdicts import Injection, Report, Verdict

CURVES = {
    "lag, affected": [(0.0, 0.0), (5.0, 12.0)],
    "lag, control": [(0.0, 0.0), (5.0, 1.0)],
    "coverage, affected": [(0.0, 1.0), (5.0, 0.0)],
}
MARKS = {"injected": 1.0, "detected": 2.0, "healed": 4.0, "recovered": 4.5, "ended": 5.0}


def make_document():
    ran = Report(
        "partition", "local", "no packet passes", Verdict.FAILED, Injection.CONFIRMED, 1.0, 0.5,
        {"I1": "violated", "I2": "kept"}, "I1 <script>alert(1)</script>", {"during": {"connect": "timeout"}},
        MARKS, CURVES, {"routed": 10},
    )  # fmt: skip
    skipped = Report("delay-500ms", "local", "", Verdict.SKIPPED, reason="the kernel has no sch_netem")
    return as_document([ran, skipped], "local", 7)


def test_it_shows_the_timeline_the_proof_the_invariants_and_what_was_skipped():
    text = render(build_page(make_document()))
    for wanted in ("injected at 1.0 s", "detected at 2.0 s", "healed at 4.0 s", "converged at 4.5 s", "I1 violated",
                   "Proof of injection", "timeout", "the kernel has no sch_netem", "seed 7"):  # fmt: skip
        assert wanted in text


def test_it_is_self_contained_and_escapes_what_systems_say():
    text = render(build_page(make_document()))
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)


def test_a_chart_has_a_line_per_curve_and_shades_the_fault():
    lag, coverage = build_charts(CURVES, MARKS)
    assert [key.name for key in lag.keys] == ["affected engine", "control engine"]
    assert [key.name for key in coverage.keys] == ["affected engine"]
    assert (lag.shade, coverage.y.high) == ((20.0, 60.0), 1.0)
    assert build_charts({}, MARKS) == []


@pytest.mark.parametrize("look", LOOKS, ids=str)
def test_a_browser_finds_nothing_wrong(browser, tmp_path, look):
    path = tmp_path / "report.html"
    write_page(make_document(), path)
    with browser.open(path, look) as page:
        assert page.problems() == []
