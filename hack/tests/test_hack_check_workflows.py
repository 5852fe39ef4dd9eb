"""The check of the workflows finds each violation, and the workflows of this repository have none."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "hack/check_workflows.py"
PIN = "actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2"
MAKEFILE = ".PHONY: setup test\nVAR := value\nsetup: ## x\n\ttrue\n\ntest lint: setup ## y\n\ttrue\n"
WORKFLOW = f"""\
name: X
on:
  schedule:
    - cron: "17 3 * * *"
permissions: {{}}
concurrency: x
jobs:
  one:
    runs-on: ubuntu-24.04
    timeout-minutes: 5
    permissions:
      contents: read
    steps:
      - uses: {PIN}
      - run: make setup test VAR="a b"
      - run: >-
          KVSYNC_SCALE=3 make lint &&
          make test
"""
CI = "set -e\nmake test\nif true; then\n  make lint\nfi\n"


def check(folder, *, workflow=WORKFLOW, ci=CI, name="complete-testing.yml"):
    """(exit code, lines) for a repository with one workflow."""
    for path, text in {"Makefile": MAKEFILE, f".github/workflows/{name}": workflow, ".ci/run": ci}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_a_workflow_that_follows_the_rules_passes(tmp_path):
    assert check(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("make lint &&", "make none &&", "job one calls the target none, which the Makefile does not have"),
        ("make setup test", "hack/setup.sh", "job one runs something else than make: 'hack/setup.sh VAR=\"a b\"'"),
        ("make setup test", "make setup | tee log", "job one runs something else than make:"),
        ("permissions: {}", "permissions: read-all", "needs `permissions: {}` at the top"),
        ("concurrency: x\n", "", "needs a concurrency group"),
        ("    timeout-minutes: 5\n", "", "job one needs timeout-minutes"),
        ("17 3", "16 3", "the schedule '16 3 * * *' does not start at an odd minute"),
        (PIN, "actions/checkout@v4", "line 14: pin the action by the hash of a commit"),
        (PIN, PIN.partition(" #")[0], "line 14: pin the action by the hash of a commit"),
    ],
)
def test_a_violation_is_named(tmp_path, old, new, problem):
    assert old in WORKFLOW
    code, lines = check(tmp_path, workflow=WORKFLOW.replace(old, new))
    assert code == 1
    assert any(line.startswith(f".github/workflows/complete-testing.yml: {problem}") for line in lines), lines


def test_the_local_script_calls_only_what_github_runs_too(tmp_path):
    assert check(tmp_path, ci="make gone\n") == (
        1,
        [".ci/run: calls the target gone, which the Makefile does not have"],
    )
    only_here = WORKFLOW.replace("make setup test", "make test").replace("make lint &&", "make test &&")
    assert check(tmp_path, workflow=only_here) == (
        1,
        [".ci/run: calls the target lint, which complete-testing.yml does not call"],
    )


def test_the_workflows_of_this_repository_pass():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
