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

from kvsync.report.charts import ENGINE_COLOURS, add_line, base_figure, fragment
from kvsync.report.files import write_whole
from kvsync.report.page import ChartBlock, Fact, Page, TableBlock, render


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
    passed = document["verdict"] == "passed"
    facts = [
        Fact("verdict", document["verdict"], "; ".join(document["reasons"][:3]), good=passed),
        *(Fact(name, f"{count:,}") for name, count in document["counts"].items()),
        Fact("slowest recovery", f"{max((point.recovered_s for point in record.quiet), default=0.0):.1f} s"),
    ]
    figure = base_figure("seconds", "MiB")
    memory = [(key, points) for key, points in sorted(sampler.series.items()) if key[2] == "memory"]
    for number, ((server, life, _), points) in enumerate(memory):
        shifted = [(at - sampler.began, value) for at, value in points]
        add_line(figure, f"{server}, life {life}", shifted, ENGINE_COLOURS[number % len(ENGINE_COLOURS)])
    injected = Counter(each.name for each in record.faults)
    effects = Counter(dict.fromkeys(injected, 0))
    for each in record.faults:
        effects[each.name] += each.count
    return Page(
        title="Soak run",
        subtitle=f"seed {record.seed}, {record.duration_s / 60:.1f} minutes",
        facts=facts,
        charts=[
            ChartBlock("Memory", "Resident memory of each process; a restart begins a new line.", fragment(figure))
        ],
        tables=[
            TableBlock(
                "Quiet points",
                ("at", "recovered after", "blocks", "incomplete", "differences"),
                [
                    (
                        f"{q.at_s:.0f} s",
                        f"{q.recovered_s:.1f} s",
                        f"{q.blocks:,}",
                        str(q.incomplete),
                        "; ".join(q.problems) or "none",
                    )
                    for q in record.quiet
                ],
                "Traffic rests, all faults are healed, and the tables of index and engines are compared.",
            ),
            TableBlock(
                "Faults",
                ("fault", "times", "effects"),
                [(n, str(c), str(effects[n])) for n, c in sorted(injected.items())],
            ),
            TableBlock(
                "Growth per hour",
                ("size", "slope", "95 % interval", "detectable", "verdict"),
                [
                    (
                        s.name,
                        f"{s.per_hour:.3g} {s.unit}",
                        f"{s.low_per_hour:.3g} to {s.high_per_hour:.3g}",
                        f"{s.detectable_per_hour:.3g}",
                        "grows" if s.failed else "passed",
                    )
                    for s in record.slopes
                ],
                "Sen's slope of the samples after the first third of the run.",
            ),
        ],
        footer="Written by make soak.",
    )
