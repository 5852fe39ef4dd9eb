"""The report for people: complete, self-contained, and safe to open."""

import re

from kvsync_testkit.chaos.page import chart, render
from kvsync_testkit.chaos.report import as_document
from kvsync_testkit.chaos.verdicts import Injection, Report, Verdict

CURVES = {
    "lag, affected": [(0.0, 0.0), (5.0, 12.0)],
    "lag, control": [(0.0, 0.0), (5.0, 1.0)],
    "coverage, affected": [(0.0, 1.0), (5.0, 0.0)],
}
MARKS = {"injected": 1.0, "detected": 2.0, "healed": 4.0, "recovered": 4.5, "ended": 5.0}


def page() -> str:
    ran = Report(
        "partition", "local", "no packet passes", Verdict.FAILED, Injection.CONFIRMED, 1.0, 0.5,
        {"I1": "violated", "I2": "kept"}, "I1 <script>alert(1)</script>", {"during": {"connect": "timeout"}},
        MARKS, CURVES, {"routed": 10},
    )  # fmt: skip
    skipped = Report("delay-500ms", "local", "", Verdict.SKIPPED, reason="the kernel has no sch_netem")
    return render(as_document([ran, skipped], "local", 7))


def test_it_shows_the_timeline_the_proof_the_invariants_and_what_was_skipped():
    text = page()
    for wanted in ("injected at 1.0 s", "detected at 2.0 s", "healed at 4.0 s", "converged at 4.5 s", "I1 violated",
                   "Proof of injection", "timeout", "the kernel has no sch_netem", "seed 7"):  # fmt: skip
        assert wanted in text


def test_it_is_self_contained_and_escapes_what_systems_say():
    text = page()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert "prefers-color-scheme:dark" in text
    assert 'name="viewport"' in text


def test_a_chart_has_a_line_per_curve_inside_its_box():
    drawn = chart(CURVES, "lag", MARKS, None)
    assert drawn.count("<polyline") == 2
    points = [float(value) for line in re.findall(r'points="([^"]+)"', drawn) for value in re.split("[ ,]", line)]
    assert all(0.0 <= x <= 640.0 for x in points[::2])
    assert all(0.0 <= y <= 130.0 for y in points[1::2])
