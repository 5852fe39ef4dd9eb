"""The report of a soak run: report.json for programs, report.html for people."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from soak_faults import Injection
from soak_quiet import QuietPoint
from soak_sampling import Sampler
from soak_slopes import Slope

from kvsync.report.files import write_whole
from kvsync_pages import Cell, Fact, Lines, Page, Remark, Section, Series, Table, render
from kvsync_pages.tones import BAD, GOOD


@dataclass
class Record:
    """What a run did and saw."""

    seed: int
    minutes: float
    faults: list[Injection] = field(default_factory=list)
    quiet: list[QuietPoint] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    slopes: list[Slope] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False
    duration_s: float = 0.0

    def reasons(self) -> list[str]:
        """Why the run failed; empty if it passed."""
        found = list(self.problems)
        for number, point in enumerate(self.quiet, 1):
            found += [f"quiet point {number}: {problem}" for problem in point.problems]
        for slope in self.slopes:
            if slope.failed:
                found.append(f"{slope.name} grows by {slope.low_per_hour:.3g} {slope.unit} per hour or more")
        if not self.quiet:
            found.append("the run had no quiet point")
        return found

    def document(self) -> dict[str, Any]:
        """The contents of report.json."""
        reasons = self.reasons()
        return {
            "verdict": "interrupted" if self.interrupted else "failed" if reasons else "passed",
            "reasons": reasons,
            "counts": {
                "quiet points": len(self.quiet),
                "faults": len(self.faults),
                "requests": sum(self.outcomes.values()),
            },
            "seed": self.seed,
            "minutes": self.minutes,
            "duration_s": round(self.duration_s, 1),
            "faults": [asdict(each) for each in self.faults],
            "quiet": [asdict(each) for each in self.quiet],
            "outcomes": dict(self.outcomes),
            "slopes": [asdict(each) for each in self.slopes],
        }


def write_report(record: Record, sampler: Sampler, out: Path) -> dict[str, Any]:
    """Write both files and return the document."""
    document = record.document()
    write_whole(out / "report.json", json.dumps(document, indent=2) + "\n")
    write_whole(out / "report.html", render(build_page(record, document, sampler)))
    return document


def build_page(record: Record, document: dict[str, Any], sampler: Sampler) -> Page:
    """The page: the verdict, memory over time, the quiet points, the faults and the slopes."""
    slowest = max((point.recovered_s for point in record.quiet), default=0.0)
    return Page(
        title="kvsync soak run",
        subtitle=f"Seed {record.seed}, {record.duration_s / 60:.1f} minutes.",
        verdict=f"The run {document['verdict']}.",
        tone=GOOD if document["verdict"] == "passed" else BAD,
        remarks=[Remark(reason, BAD) for reason in document["reasons"]],
        facts=[
            *(Fact(name, f"{count:,}") for name, count in document["counts"].items()),
            Fact("slowest recovery", f"{slowest:.1f} s"),
        ],
        sections=[
            Section("Memory", [_memory(sampler)]),
            Section("Quiet points", [_quiet_points(record)]),
            Section("Faults", [_faults(record)]),
            Section("Growth per hour", [_growth(record)]),
        ],
        footer="Written by make soak.",
    )


def _memory(sampler: Sampler) -> Lines:
    curves = [(key, points) for key, points in sorted(sampler.series.items()) if key[2] == "memory"]
    series = [
        Series(f"{server}, life {life}", [(at - sampler.began, value) for at, value in points])
        for (server, life, _), points in curves
    ]
    text = "Resident memory of each process; a restart begins a new line."
    return Lines("Resident memory", series, text, y_title="MiB")


def _quiet_points(record: Record) -> Table:
    rows = [
        (
            f"{point.at_s:.0f} s",
            f"{point.recovered_s:.1f} s",
            f"{point.blocks:,}",
            str(point.incomplete),
            Cell("; ".join(point.problems) or "none", BAD if point.problems else ""),
        )
        for point in record.quiet
    ]
    text = "Traffic rests, all faults are healed, and the tables of index and engines are compared."
    return Table("", ("at", "recovered after", "blocks", "incomplete", "differences"), rows, text)


def _faults(record: Record) -> Table:
    injected = Counter(each.name for each in record.faults)
    effects = Counter(dict.fromkeys(injected, 0))
    for each in record.faults:
        effects[each.name] += each.count
    rows = [(name, str(count), str(effects[name])) for name, count in sorted(injected.items())]
    return Table("", ("fault", "times", "effects"), rows)


def _growth(record: Record) -> Table:
    rows = [
        (
            slope.name,
            f"{slope.per_hour:.3g} {slope.unit}",
            f"{slope.low_per_hour:.3g} to {slope.high_per_hour:.3g}",
            f"{slope.detectable_per_hour:.3g}",
            Cell("grows", BAD) if slope.failed else Cell("passed", GOOD),
        )
        for slope in record.slopes
    ]
    text = "Sen's slope of the samples after the first third of the run."
    return Table("", ("size", "slope", "95 % interval", "detectable", "verdict"), rows, text)
