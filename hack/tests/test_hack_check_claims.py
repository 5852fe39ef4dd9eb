"""What check_claims accepts and refuses: figures with commands, promises with tests, and commands that exist."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "check_claims.py"

MAKEFILE = """
demo: setup ## Run it
	x $(DEMO_ARGS) $(if $(BASE),--base $(BASE)) $(BENCH_ARGS)
"""


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "test" / "benchmark").mkdir(parents=True)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / "tests" / "test_x.py").write_text("def test_it():\n    pass\n\n\nasync def test_that():\n    pass\n")
    (tmp_path / "tests" / "run.py").write_text('parser.add_argument("--fast")\n')
    (tmp_path / "test" / "benchmark" / "bench_run.py").write_text('parser.add_argument("--only")\n')
    return tmp_path


def findings(tree, page, name="docs/x.md"):
    (tree / name).write_text(page)
    done = subprocess.run([sys.executable, SCRIPT, tree], capture_output=True, text=True, check=False)
    found = [line.removeprefix(f"{name}:") for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (1 if found else 0, "")
    return found


@pytest.mark.parametrize(
    "page",
    [
        "no numbers\n",
        "<!-- figures: make demo -->\nIt takes 3 µs, and 4 ms.\n\n1,000 blocks per second\n",
        "<!-- figures: settings -->\nIt waits for 30 ms.\n",
        "<!-- figures: elsewhere, a paper of 2026 -->\nThey took 30 MiB.\n",
        "<!-- figures: python tests/run.py --fast -->\n2,000 requests per CPU second\n",
        "<!-- figures: KVSYNC_X=1 pytest tests/test_x.py -->\n12 MiB\n",
        "<!-- figures: kvsync replay t.jsonl --offline -->\n12 ms\n",
        "<!-- promise: tests/test_x.py::test_it -->\n<!-- promise: tests/test_x.py::test_that -->\n",
        '```\nmake demo DEMO_ARGS=--x # 3 ms\nmake demo BENCH_ARGS="--only a"\n.venv/bin/kvsync demo --keep\n```\n',
        "```\nmake demo BASE=HEAD~5\nkvsync demo [--engines N]\nvllm serve … --x\ncurl --nonsense\n```\n",
    ],
)
def test_what_is_right(tree, page):
    assert findings(tree, page) == []


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ("It takes 3 µs.\n", "1: a figure without a comment"),
        ("<!-- figures: make demo -->\n# Next\n3 ms\n", "3: a figure without a comment"),
        ("<!-- figures: make demos -->\n", "1: make demos: no such target"),
        ("<!-- figures: elsewhere, x -->\n", "neither a make target nor a script"),
        ("<!-- figures: I measured it -->\n", "neither a make target nor a script"),
        ("<!-- figures: python tests/none.py -->\n", "tests/none.py: no such script"),
        ("<!-- figures: python tests/run.py --slow -->\n", "tests/run.py --slow: no such flag"),
        ("<!-- figures: pytest tests/none.py -->\n", "tests/none.py: no such file"),
        ("<!-- promise: tests/test_x.py::test_this -->\n", "no such test"),
        ("<!-- promise: tests/test_y.py::test_it -->\n", "no such file"),
        ("```\nmake demo X=1\n```\n", "2: make X=1: nothing reads X"),
        ('```\nmake demo BENCH_ARGS="--onyl a"\n```\n', "bench_run.py --onyl: no such flag"),
        ("```\n.venv/bin/kvsync dmeo\n```\n", "kvsync dmeo: no such command"),
        ("```\nkvsync demo --keeps | less -R\n```\n", "kvsync demo --keeps: no such option"),
        ("```\nmake demo BASE=v9.9.9\n```\n", "BASE=v9.9.9: there is no such tag"),
    ],
)
def test_what_is_wrong(tree, page, says):
    (finding,) = findings(tree, page)
    assert says in finding


def test_a_tag_that_exists_may_be_named(tree):
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", "-C", str(tree)]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"], ["tag", "v9.9.9"]):
        subprocess.run([*git, *command], check=True)
    assert findings(tree, "make demo BASE=v9.9.9\n") == []


def test_each_section_of_the_readme_names_a_test_or_a_command(tree):
    page = "# x\n## Guides\n## Fast\ntext\n## Good\n<!-- promise: tests/test_x.py::test_it -->\n"
    assert findings(tree, page, "README.md") == ["3: this section has no comment that names a test or a command"]


def test_docs_claims():
    """The pages of this repository claim nothing without a command or a test that exists."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
