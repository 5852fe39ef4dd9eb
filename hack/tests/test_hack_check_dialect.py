"""The check of the house rules finds each violation, and accepts what only looks like one."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "check_dialect.py"


def check(folder, text, name="module.py"):
    """(exit code, lines) for a tree with one file."""
    (folder / name).write_text(text)
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('__all__ = ["x"]', "1: a plain module defines __all__; only a package's __init__.py does"),
        ('__all__: list[str] = ["x"]', "1: a plain module defines __all__; only a package's __init__.py does"),
        ('_log.warning("endpoint failed")', "1: the event name 'endpoint failed' is not in snake_case"),
        ('self._log.info("endpointFailed")', "1: the event name 'endpointFailed' is not in snake_case"),
        (
            'log.error(f"{name} failed")',
            "1: the event name of a log call is a string literal; values are keyword arguments",
        ),
        ('if x:\n    msg = f"{x}"\n    raise ValueError(msg)', "3: raise the error with its message in place"),
    ],
)
def test_a_violation_is_named_with_its_line(tmp_path, text, problem):
    assert check(tmp_path, text) == (1, [f"module.py:{problem}"])


@pytest.mark.parametrize(
    "text",
    [
        '_log.warning("endpoint_failed", name=name, error=str(error))',
        'math.log("some text")',
        'console.error("some text")',
        'message = "x"\nprint(message)\nraise ValueError(message)',
        'raise ValueError(f"{x} is no number")',
        "names = __all__",
    ],
)
def test_what_only_looks_like_a_violation_passes(tmp_path, text):
    assert check(tmp_path, text) == (0, [])


def test_a_package_may_list_its_names(tmp_path):
    assert check(tmp_path, '__all__ = ["x"]', "__init__.py") == (0, [])


def test_build_results_are_not_looked_at(tmp_path):
    for name in (".venv", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "other.py").write_text("__all__ = []")
    assert check(tmp_path, "x = 1") == (0, [])
