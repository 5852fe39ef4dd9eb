"""The link checker finds each kind of broken link, and nothing in a page that is right."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "check_links.py"
TREE = {
    "README.md": "# Project\n\nSee [the guides](docs/README.md) and ![a picture](docs/images/a.png).\n",
    "docs/README.md": "# Guides\n\n- [One](one.md)\n- [Two](deep/two.md#the-end-of-it)\n",
    "docs/one.md": "# One `code` & more\n\n[here](#one-code--more), [elsewhere](https://example.org/none)\n",
    "docs/deep/two.md": "# 2\n\n## The end of it\n\n## The end of it\n\n[back](../one.md)\n[again](#the-end-of-it-1)\n",
    "docs/images/a.png": "",
}


def check(folder, **changes):
    """(exit code, lines) for the tree with some files changed; None as the text removes the file."""
    for name, text in (TREE | {name.replace("__", "/") + ".md": text for name, text in changes.items()}).items():
        if text is not None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def test_a_tree_without_a_broken_link_passes(tmp_path):
    assert check(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ("[x](none.md)", "docs/one.md: none.md: no such file"),
        ("![x](images/none.png)", "docs/one.md: images/none.png: no such file"),
        ("[x]: deep/none.md", "docs/one.md: deep/none.md: no such file"),
        ('<img src="none.svg">', "docs/one.md: none.svg: no such file"),
        ("[x](#none)", "docs/one.md: #none: no heading with the anchor #none"),
        ("[x](deep/two.md#none)", "docs/one.md: deep/two.md#none: no heading with the anchor #none"),
        ("[x](/docs/one.md)", "docs/one.md: /docs/one.md: is absolute; write it relative to the page"),
        ("[x](../../other.md)", "docs/one.md: ../../other.md: leaves the repository"),
    ],
)
def test_a_broken_link_is_named(tmp_path, added, problem):
    assert check(tmp_path, docs__one=TREE["docs/one.md"] + added + "\n") == (1, [problem])


@pytest.mark.parametrize("added", ["`[x](none.md)`", "```\n[x](none.md)\n# Heading\n```", "~~~\n[x](none.md)\n~~~"])
def test_code_holds_no_links(tmp_path, added):
    assert check(tmp_path, docs__one=TREE["docs/one.md"] + added + "\n") == (0, [])


def test_a_heading_in_code_is_no_anchor(tmp_path):
    code, lines = check(tmp_path, docs__one=TREE["docs/one.md"] + "```\n# Heading\n```\n[x](#heading)\n")
    assert (code, lines) == (1, ["docs/one.md: #heading: no heading with the anchor #heading"])


def test_a_page_without_an_inbound_link_is_named(tmp_path):
    code, lines = check(tmp_path, docs__lost="# Lost\n\n[out](README.md)\n")
    assert (code, lines) == (1, ["docs/lost.md: cannot be reached from docs/README.md"])


def test_the_readme_links_to_the_index(tmp_path):
    assert check(tmp_path, README="# Project\n") == (1, ["docs/README.md: README.md does not link to the index"])


def test_a_missing_index_is_named(tmp_path):
    code, lines = check(tmp_path, docs__README=None)
    assert code == 1
    assert "docs/README.md: the index of the pages is missing" in lines
