"""The examples of docs/testing, each run as the test file it is, and the promises of the pages about them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

DOCS = Path(__file__).parents[2] / "docs/testing"
TUTORIALS = ("tutorial-router", "tutorial-wire")
SECTION = re.compile(r"^## `(\w+)`.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
SETTINGS = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
markers = cluster: needs a real cluster
"""
EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECTIONS = {match[1]: match[0] for match in SECTION.finditer((DOCS / "testkit.md").read_text())}
PAGES = {**SECTIONS, **{name: (DOCS / f"{name}.md").read_text() for name in TUTORIALS}}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Names of the tests of each section with their outcome, from one run of pytest outside the repository."""
    folder = tmp_path_factory.mktemp("examples")
    for name, text in PAGES.items():
        (folder / f"test_{name}.py").write_text("\n".join(EXAMPLE.findall(text)))
    (folder / "pytest.ini").write_text(SETTINGS)
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", "--junitxml=report.xml", "-m", "not cluster"]
    # Only the plugins that the page speaks of, because loading all that are installed here takes seconds.
    command += ["-p", "kvsync_testkit.plugin", "-p", "pytest_asyncio.plugin"]
    run = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    report = folder / "report.xml"
    assert report.exists(), run.stdout + run.stderr
    found = {name: {} for name in PAGES}
    for case in ET.parse(report).iter("testcase"):
        outcome = case[0].tag + ": " + (case[0].text or "") if len(case) else "passed"
        found[case.get("classname").rpartition(".")[2].removeprefix("test_")][case.get("name")] = outcome
    return found


@pytest.mark.parametrize("section", PAGES)
def test_the_examples_of_each_section_pass(section, outcomes):
    assert outcomes[section]
    for name, outcome in outcomes[section].items():
        assert outcome == "passed", f"{name}: {outcome}"


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_says_what_it_replaces(section):
    assert "\n*Replaces:* " in SECTIONS[section]


def test_the_page_has_every_module():
    expected = {"token_blocks", "managers", "transport", "physical", "agents", "distributed", "connector", "events"}
    assert expected | {"scheduler", "faults", "checks", "cluster", "processes"} <= set(SECTIONS)


def test_the_test_of_a_router_takes_at_most_30_lines():
    *_, test = EXAMPLE.findall(PAGES["tutorial-router"])
    assert test.startswith("def test_")
    assert len(test.splitlines()) <= 30
