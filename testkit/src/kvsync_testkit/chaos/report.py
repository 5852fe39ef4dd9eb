"""`report.json`: the verdict on every fault, and what it was reached on."""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvsync_testkit.chaos.verdicts import Report, Verdict

SHORT = ("backend", "verdict", "injection", "detected_s", "recovered_s", "invariants", "reason")


def as_document(reports: Sequence[Report], backend: str, seed: int, note: str = "") -> dict[str, Any]:
    """Return the whole report as JSON values."""
    counts = Counter(str(report.verdict) for report in reports)
    return {
        "backend": backend,
        "seed": seed,
        "note": note,
        "machine": {"kernel": platform.release(), "python": platform.python_version()},
        "verdict": "failed" if failed(reports) else "passed",
        "counts": dict(counts),
        "faults": {report.name: report.as_json() for report in reports},
    }


def failed(reports: Sequence[Report]) -> bool:
    """Return whether a fault failed, or none passed: a run in which everything was skipped proves nothing."""
    verdicts = [report.verdict for report in reports]
    return Verdict.FAILED in verdicts or Verdict.PASSED not in verdicts


def write_json(document: dict[str, Any], path: Path) -> None:
    """Write the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, default=str) + "\n")


def summary(reports: Sequence[Report]) -> str:
    """Return one line per fault, for a terminal."""
    width = max((len(report.name) for report in reports), default=0)
    lines = []
    for report in reports:
        took = "" if report.recovered_s is None else f"recovered in {report.recovered_s:.1f} s"
        lines.append(f"{report.name:{width}}  {report.verdict:19}  {report.injection:12}  {took:20}  {report.reason}")
    return "\n".join(lines)
