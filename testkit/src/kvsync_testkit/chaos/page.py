"""Builds `report.html`, which shows the facts of `report.json` to people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvsync_pages import Cell, Details, Lines, Listing, Mark, Page, Remark, Section, Series, Table, render
from kvsync_pages.scales import percent, plain
from kvsync_pages.tones import BAD, GOOD, QUIET, WARN

Fault = Mapping[str, Any]

_MARKS = (
    ("injected", "injected", BAD),
    ("detected", "detected", WARN),
    ("healed", "healed", GOOD),
    ("recovered", "converged", GOOD),
)
_CURVES = (
    ("lag", "Batches that the index is behind the engine", plain, None),
    ("coverage", "Share of the engine's blocks that the index holds and trusts", percent, 1.0),
)
_TONES = {
    "passed": GOOD,
    "kept": GOOD,
    "Confirmed": GOOD,
    "failed": BAD,
    "violated": BAD,
    "Mismatch": BAD,
    "skipped": WARN,
    "Inconclusive": WARN,
}


def write_page(document: Mapping[str, Any], path: Path) -> None:
    """Write the page for a document of `report.as_document`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(build_page(document)), encoding="utf-8")


def build_page(document: Mapping[str, Any]) -> Page:
    """Build the page: an overview, a section per fault that was injected, and what was skipped."""
    faults: Mapping[str, Fault] = document["faults"]
    ran = [fault for fault in faults.values() if not fault["verdict"].startswith("skipped")]
    skipped = [fault for fault in faults.values() if fault["verdict"].startswith("skipped")]
    counts = ", ".join(f"{count} {name}" for name, count in document["counts"].items())
    note = f" {document['note']}." if document.get("note") else ""
    return Page(
        title="kvsync chaos report",
        verdict=f"The run {document['verdict']}: {counts}.",
        tone=_tone(document["verdict"]),
        subtitle=(
            f"Backend {document['backend']}, seed {document['seed']}, kernel {document['machine']['kernel']}.{note} "
            "A fault passes only if an independent probe confirmed that it was in place, the system recovered within "
            "its bound, and every promised invariant was checked and kept."
        ),
        sections=[
            Section("Overview", [_overview(ran)]),
            *(_section(fault) for fault in ran),
            *([_skipped(skipped)] if skipped else []),
        ],
    )


def _tone(word: str) -> str:
    """The tone of a verdict, of the state of an invariant or of an injection."""
    return _TONES.get(word.split("(")[0].split()[0], QUIET)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _overview(faults: Sequence[Fault]) -> Table:
    columns = ("fault", "verdict", "injection", "noticed after", "recovered after")
    rows = [
        (
            Cell(fault["name"], href=f"#{fault['name']}"),
            Cell(fault["verdict"], _tone(fault["verdict"])),
            Cell(fault["injection"], _tone(fault["injection"])),
            _seconds(fault["detected_s"]),
            _seconds(fault["recovered_s"]),
        )
        for fault in faults
    ]
    return Table("", columns, rows, texts=columns[1:3])


def _section(fault: Fault) -> Section:
    requests = ", ".join(f"{count} {name}" for name, count in fault["requests"].items())
    marks = fault["timeline"]
    moments = [f"{label} at {marks[name]:.1f} s" for name, label, _ in _MARKS if marks.get(name, -1.0) >= 0]
    proof = "\n".join(f"{moment}: {detail}" for moment, detail in fault["proof"].items())
    said = [f"{fault['breaks']}." if fault["breaks"] else "", f"Backend {fault['backend']}."]
    said += [f"Requests: {requests}." if requests else "", f"Timeline: {', '.join(moments)}." if moments else ""]
    return Section(
        fault["name"],
        [
            *([Remark(fault["reason"], BAD)] if fault["reason"] else []),
            *build_charts(fault["curves"], marks),
            Listing([Cell(f"{name} {state}", _tone(state)) for name, state in fault["invariants"].items()]),
            Details(f"Proof of injection: {fault['injection']}", proof, _tone(fault["injection"])),
        ],
        text=" ".join(filter(None, said)),
        verdict=fault["verdict"],
        tone=_tone(fault["verdict"]),
        anchor=fault["name"],
    )


def build_charts(curves: Mapping[str, Sequence[Sequence[float]]], marks: Mapping[str, float]) -> list[Lines]:
    """Build a chart for lag and one for coverage, with the affected and the control engine in each."""
    charts = []
    for stem, title, y_format, top in _CURVES:
        series = [
            Series("control engine", points, "s3", 1) if name.endswith("control") else Series("affected engine", points)
            for name, points in sorted(curves.items())
            if name.startswith(stem) and points
        ]
        if series:
            shown = [Mark(marks[name], label, tone) for name, label, tone in _MARKS if marks.get(name, -1.0) >= 0]
            span = (marks["injected"], marks["healed"]) if {"injected", "healed"} <= marks.keys() else None
            charts.append(Lines(title, series, marks=shown, span=span, top=top, y_format=y_format))
    return charts


def _skipped(faults: Sequence[Fault]) -> Section:
    rows = [(fault["name"], fault["reason"]) for fault in faults]
    return Section("Skipped for want of a capability", [Table("", ("fault", "what is missing"), rows)])
