"""Each command of the guides in docs/testing works, and each symptom looks as the troubleshooting guide shows it."""

import ast
import re
import shlex
import subprocess
import sys

import pytest
from guides_blocks import FOLDER, PAGES, ROOT, missing_lines, normalize, read_blocks
from guides_lab import lab
from guides_situations import SITUATIONS

BLOCKS = [block for page in PAGES for block in read_blocks(page)]
RUN = [block for block in BLOCKS if block.kind in ("run", "symptom")]
MAKE = [block for block in BLOCKS if block.kind == "make"]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def setup_of(page):
    return "".join(block.script for block in BLOCKS if block.page == page and block.kind == "setup")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("situation", SITUATIONS)
def test_the_commands_show_what_the_guides_say(situation, tmp_path):
    blocks = [block for block in RUN if (block.name.partition("/")[0] or "usual") == situation]
    assert blocks, "no guide describes this situation"
    with lab(tmp_path) as running:
        SITUATIONS[situation](running)
        for block in blocks:
            code, output = running.run(setup_of(block.page) + block.script)
            assert block.kind == "symptom" or code == 0, f"{block}: exit code {code}\n{output}"
            missing = missing_lines(block.shown, output)
            assert not missing, f"{block}: the output lacks {missing}:\n{output}"


def test_each_symptom_belongs_to_a_situation_and_shows_something():
    for block in BLOCKS:
        if block.kind == "symptom":
            assert block.name.partition("/")[0] in SITUATIONS, str(block)
            assert block.shown, str(block)


def test_every_block_of_commands_says_how_it_is_checked():
    known = {"setup", "run", "symptom", "make", "cluster", "values"}
    assert [str(block) for block in BLOCKS if block.kind not in known] == []


@pytest.mark.parametrize("block", MAKE, ids=str)
def test_the_targets_exist(block):
    called = set()
    for line in block.script.splitlines():
        words = [word for word in shlex.split(line, comments=True) if "=" not in word]
        assert words[:1] == ["make"], line
        called |= set(words[1:])
    assert called
    assert called <= TARGETS


def test_the_example_of_an_end_to_end_test_is_one():
    text = (FOLDER / "e2e-test-guide.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    tree = ast.parse(example)
    assert [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT / "test/e2e", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_line_that_is_not_seen_is_named():
    assert missing_lines("blocks 12\nstate …\n", "x\nblocks   3\nstate live\n") == []
    assert missing_lines("state live\nblocks 12 13", "state stale\nblocks 1") == ["state live", "blocks 12 13"]
    assert normalize("  a  1.25 s,") == "a # s,"
