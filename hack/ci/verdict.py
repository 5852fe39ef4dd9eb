#!/usr/bin/env python3
"""Write the verdict of a workflow run as one table: `make ci-verdict`, the last job of complete-testing.yml.

The environment variable NEEDS holds the context `needs` of the job as JSON, which has the result of every stage. The
reports that the stages left in their artifacts, below out/artifacts, give the details. The table goes to the summary
page of the run and to out/ci/verdict.md. If PULL_REQUEST holds a number, the table also becomes the one comment with
the verdict on that pull request, which every run replaces. The exit code is 1 unless every stage succeeded.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from github_api import Repository

ROOT = Path(__file__).resolve().parents[2]
MARK = "<!-- kvsync: verdict -->"
SIGNS = {"success": "passed", "failure": "**failed**", "cancelled": "**cancelled**", "skipped": "**did not run**"}


def main() -> int:
    """Write the table where it belongs, and return the exit code."""
    stages = {name: each["result"] for name, each in json.loads(os.environ["NEEDS"]).items()}
    text = table(stages, Path(os.environ.get("ARTIFACTS", ROOT / "out/artifacts")))
    out = Path(os.environ.get("OUT", ROOT / "out/ci")) / "verdict.md"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
    if number := os.environ.get("PULL_REQUEST"):
        comment(Repository(), int(number), text)
    return 0 if passed(stages) else 1


def passed(stages: dict[str, str]) -> bool:
    """Whether every stage ran and succeeded."""
    return bool(stages) and all(result == "success" for result in stages.values())


def table(stages: dict[str, str], artifacts: Path) -> str:
    """The verdict in Markdown: a headline and one line per stage."""
    details = read_details(artifacts)
    lines = [
        f"## Complete testing: {'passed' if passed(stages) else 'failed'}",
        "",
        "|Stage|Result|Details|",
        "|---|---|---|",
    ]
    for stage, result in stages.items():
        said = "; ".join(text for name, text in details if name == stage or name.startswith(f"{stage}-"))
        lines.append(f"|{stage}|{SIGNS.get(result, result)}|{said.replace('|', '/')}|")
    return "\n".join(lines) + "\n"


def read_details(artifacts: Path) -> list[tuple[str, str]]:
    """(name of the artifact, what its reports say) for each artifact that has a report."""
    found = []
    for folder in sorted(path for path in artifacts.glob("*") if path.is_dir()):
        said = [describe_junit(path) for path in sorted(folder.rglob("junit*.xml"))]
        said += [text for path in sorted(folder.rglob("report.json")) if (text := describe_report(path))]
        found += [(folder.name, text) for text in said]
    return found


def describe_junit(path: Path) -> str:
    """The counts of a JUnit report, and the names of up to five tests that failed."""
    cases = list(ET.parse(path).iter("testcase"))
    bad = [each.get("name", "") for each in cases if each.find("failure") is not None or each.find("error") is not None]
    skipped = sum(each.find("skipped") is not None for each in cases)
    text = f"{len(cases)} tests, {len(bad)} failed, {skipped} skipped"
    return text + (f": {', '.join(bad[:5])}" if bad else "")


def describe_report(path: Path) -> str:
    """The verdict in a report of a benchmark, a chaos run or a soak run; empty for any other file."""
    report: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(report, dict):
        return ""
    verdict = report.get("verdict")
    if isinstance(verdict, dict):
        return "; ".join([verdict["text"], *verdict.get("reasons", [])])
    if isinstance(verdict, str):
        counts = report.get("counts", {})
        return f"{verdict}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    return ""


def comment(repository: Repository, number: int, text: str) -> None:
    """Replace the comment of an earlier run, or add the first one."""
    body = {"body": f"{MARK}\n{text}"}
    for each in repository.pages(f"/issues/{number}/comments"):
        if each["body"].startswith(MARK):
            repository.call("PATCH", f"/issues/comments/{each['id']}", body)
            return
    repository.call("POST", f"/issues/{number}/comments", body)


if __name__ == "__main__":
    sys.exit(main())
