#!/usr/bin/env python3
"""Check the rules for GitHub workflows that actionlint and zizmor do not know: `make lint-workflows` runs it.

- Every `run:` step consists of `make` commands, and every target exists in the Makefile, so that each step can be
  repeated on any machine.
- Every action is pinned by the full hash of a commit, and a comment names its version.
- Permissions are empty at the top; every job has its own, and a time limit. Every workflow has a concurrency group.
- A schedule starts at an odd minute, when GitHub is less busy than at the full hour.
- Every target that `.ci/run` calls is also called by complete-testing.yml.

The script prints one line per finding and exits 1 if there are any. It takes the folder of the repository as argument.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PINNED = re.compile(r"uses: [\w.-]+(/[\w.-]+)+@[0-9a-f]{40} # v\d+(\.\d+)*$")
TARGET = re.compile(r"^([a-z0-9-]+(?: [a-z0-9-]+)*):(?!=)", re.MULTILINE)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
COMPLETE = "complete-testing.yml"


def main(arguments: list[str]) -> int:
    """Check the repository in `arguments`, or the one of this script."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    targets = read_targets(root / "Makefile")
    findings: list[str] = []
    called: dict[str, set[str]] = {}
    for path in sorted((root / ".github/workflows").glob("*.y*ml")):
        text = path.read_text(encoding="utf-8")
        workflow = yaml.safe_load(text)
        problems = [*check_pins(text), *check_workflow(workflow), *check_runs(workflow, targets)]
        findings += [f".github/workflows/{path.name}: {each}" for each in problems]
        called[path.name] = {target for run in runs_of(workflow) for target in targets_of(run[1]) or ()}
    findings += [f".ci/run: {each}" for each in check_ci(root / ".ci/run", targets, called.get(COMPLETE, set()))]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def read_targets(makefile: Path) -> set[str]:
    """The explicit targets of a Makefile."""
    return {name for found in TARGET.findall(makefile.read_text(encoding="utf-8")) for name in found.split()}


def check_pins(text: str) -> Iterator[str]:
    """Actions that are not pinned by the hash of a commit with the version in a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        step = line.strip().removeprefix("- ")
        if step.startswith("uses: ") and not PINNED.fullmatch(step):
            yield f"line {number}: pin the action by the hash of a commit, with its version as comment: {step}"


def check_workflow(workflow: dict[Any, Any]) -> Iterator[str]:
    """What is missing at the top of a workflow or of its jobs."""
    if workflow.get("permissions") != {}:
        yield "needs `permissions: {}` at the top"
    if "concurrency" not in workflow:
        yield "needs a concurrency group"
    for name, job in workflow["jobs"].items():
        for key in ("permissions", "timeout-minutes"):
            if key not in job:
                yield f"job {name} needs {key}"
    triggers = workflow.get(True)  # YAML 1.1 reads the key `on` as true
    for entry in triggers.get("schedule", []) if isinstance(triggers, dict) else []:
        minute = entry["cron"].split()[0]
        if not minute.isdigit() or int(minute) % 2 == 0:
            yield f"the schedule {entry['cron']!r} does not start at an odd minute"


def runs_of(workflow: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    """(name of the job, script) of every `run:` step."""
    for name, job in workflow["jobs"].items():
        for step in job.get("steps", []):
            if "run" in step:
                yield name, step["run"]


def check_runs(workflow: dict[Any, Any], targets: set[str]) -> Iterator[str]:
    """Steps that run something else than make, and targets that do not exist."""
    for job, script in runs_of(workflow):
        called = targets_of(script)
        if called is None:
            yield f"job {job} runs something else than make: {script.strip()!r}"
        for name in sorted(set(called or ()) - targets):
            yield f"job {job} calls the target {name}, which the Makefile does not have"


def targets_of(script: str) -> list[str] | None:
    """The targets that a script calls; None if it runs anything else than make."""
    found: list[str] = []
    for command in re.split(r"&&|\n", script):
        try:
            words = [word for word in shlex.split(command) if not ASSIGNMENT.fullmatch(word)]
        except ValueError:  # a quotation that spans lines
            return None
        if not words:
            continue
        if words[0] != "make" or not all(re.fullmatch(r"[a-z0-9-]+", word) for word in words[1:]):
            return None
        found += words[1:]
    return found


def check_ci(script: Path, targets: set[str], called: set[str]) -> Iterator[str]:
    """Targets of the local CI script that do not exist or that do not run on GitHub."""
    for line in script.read_text(encoding="utf-8").splitlines():
        for name in targets_of(line.strip().removesuffix("\\")) or ():
            if name not in targets:
                yield f"calls the target {name}, which the Makefile does not have"
            elif name not in called:
                yield f"calls the target {name}, which {COMPLETE} does not call"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
