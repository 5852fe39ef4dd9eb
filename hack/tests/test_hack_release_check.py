"""What release_check refuses: versions that differ, a change log without the release, changes, and wrong tags."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "release_check.py"
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2026-12-01\n### Added\n- A thing.\n"


def git(tree, *arguments):
    who = ("-c", "user.name=x", "-c", "user.email=x@example.com")
    subprocess.run(["git", "-C", tree, *who, *arguments], check=True, capture_output=True)


def run(tree, *arguments):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--root", tree, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def write(tree, name, text):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def tree(tmp_path):
    for member in ("one", "native"):
        write(tmp_path, f"{member}/pyproject.toml", f'name = "{member}"\nversion = "0.2.0"\nx = ["y>=0.1.0"]\n')
    write(tmp_path, "native/Cargo.toml", 'version = "0.2.0"\n')
    write(tmp_path, "native/Cargo.lock", 'name = "kvsync-native"\nversion = "0.2.0"\n\nname = "x"\nversion = "3.0.0"\n')
    write(tmp_path, "charts/kvsync/Chart.yaml", "version: 0.2.0\nappVersion: 0.2.0\n")
    write(tmp_path, "CHANGELOG.md", CHANGELOG)
    git(tmp_path, "init", "-q")
    commit(tmp_path)
    return tmp_path


def commit(tree):
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "x")


def test_a_tree_that_can_be_released(tree):
    assert run(tree) == (0, ["version 0.2.0 can be released"])
    git(tree, "tag", "v0.2.0")
    assert run(tree)[0] == 0
    assert run(tree, "--notes") == (0, ["### Added", "- A thing."])


@pytest.mark.parametrize(
    ("name", "before", "after", "says"),
    [
        (
            "native/Cargo.lock",
            '"0.2.0"',
            '"0.1.0"',
            ['native/Cargo.lock: version = " 0.1.0: the other files have 0.2.0'],
        ),
        ("charts/kvsync/Chart.yaml", "appVersion: 0.2.0", "appVersion: 0.3.0", None),
        ("CHANGELOG.md", "[0.2.0]", "[0.1.0]", ["CHANGELOG.md: has no section [0.2.0]"]),
        ("CHANGELOG.md", " - 2026-12-01", "", ["CHANGELOG.md: the section [0.2.0] has no date"]),
        ("CHANGELOG.md", "- A thing.", "", ["CHANGELOG.md: the section [0.2.0] is empty"]),
        (
            "CHANGELOG.md",
            "[Unreleased]\n",
            "[Unreleased]\n- More.\n",
            ["CHANGELOG.md: [Unreleased] is not empty; give its lines a version"],
        ),
    ],
)
def test_what_is_not_ready(tree, name, before, after, says):
    path = tree / name
    path.write_text(path.read_text().replace(before, after))
    commit(tree)
    code, found = run(tree)
    assert code == 1
    assert says is None or found == says


def test_changes_and_tags_that_do_not_fit(tree):
    git(tree, "tag", "v0.1.9")
    assert run(tree) == (1, ["HEAD has the tag v0.1.9, and the files have version 0.2.0"])
    git(tree, "tag", "--delete", "v0.1.9")
    git(tree, "tag", "v0.2.0")
    write(tree, "new", "x")
    commit(tree)
    assert run(tree) == (1, ["the tag v0.2.0 exists and names another commit; raise the version"])
    git(tree, "tag", "--delete", "v0.2.0")
    write(tree, "new", "y")
    assert run(tree) == (1, ["the tree has changes that are not committed"])


def test_a_version_is_written_everywhere_and_nowhere_else(tree):
    assert run(tree, "--write", "1.0.0") == (0, [])
    assert 'version = "1.0.0"' in (tree / "one/pyproject.toml").read_text()
    assert "y>=0.1.0" in (tree / "one/pyproject.toml").read_text()
    assert (tree / "native/Cargo.lock").read_text().count("1.0.0") == 1
    assert (tree / "charts/kvsync/Chart.yaml").read_text() == "version: 1.0.0\nappVersion: 1.0.0\n"


def test_the_versions_of_this_tree_agree():
    found = run(SCRIPT.parents[1])[1]
    assert not [line for line in found if "the other files have" in line]
