#!/usr/bin/env python3
"""Check the house rules for Python that ruff has no rule for: `make lint` runs it.

- Only a package's `__init__.py` defines `__all__`; a plain module has no list to keep up to date.
- The event name of a log call is a string literal in snake_case, so that a log can be searched for it.
- An error is raised with its message in place, not through a variable assigned one line earlier.

CONTRIBUTING.md explains the rules. The script prints one line per finding and exits 1 if there are any.
"""

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SKIPPED_FOLDERS = frozenset({"node_modules", "out", "target", "build"})
LOG_METHODS = frozenset({"debug", "info", "warning", "error", "critical", "exception"})
LOGGER_NAMES = frozenset({"log", "_log", "logger", "_logger"})
EVENT_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Finding(NamedTuple):
    """One violation and where it is."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def main(arguments: list[str]) -> int:
    """Check the Python files under the folder in `arguments`, or under the repository."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    findings = [finding for path in python_files(root) for finding in check_file(path, root)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def python_files(root: Path) -> list[Path]:
    """Every `.py` file below `root`, without hidden folders and build results."""
    return sorted(
        path
        for path in root.rglob("*.py")
        if not any(part.startswith(".") or part in SKIPPED_FOLDERS for part in path.relative_to(root).parts)
    )


def check_file(path: Path, root: Path) -> Iterator[Finding]:
    """The findings of one file, in order of lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if path.name != "__init__.py" and is_all(node):
            found.append((node.lineno, "a plain module defines __all__; only a package's __init__.py does"))
        if isinstance(node, ast.Call) and (problem := check_log_call(node)):
            found.append((node.lineno, problem))
        found += [(line, "raise the error with its message in place") for line in messages_in_variables(node)]
    for line, message in sorted(found):
        yield Finding(path.relative_to(root), line, message)


def is_all(node: ast.AST) -> bool:
    """Whether the node assigns `__all__`."""
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and any(
        isinstance(target, ast.Name) and target.id == "__all__" for target in targets
    )


def check_log_call(call: ast.Call) -> str | None:
    """What is wrong with the event name of a call on a logger; None for a good name and for any other call."""
    function = call.func
    if not isinstance(function, ast.Attribute) or function.attr not in LOG_METHODS or not call.args:
        return None
    owner = function.value
    name = owner.id if isinstance(owner, ast.Name) else owner.attr if isinstance(owner, ast.Attribute) else ""
    if name not in LOGGER_NAMES:
        return None
    event = call.args[0]
    if not isinstance(event, ast.Constant) or not isinstance(event.value, str):
        return "the event name of a log call is a string literal; values are keyword arguments"
    if not EVENT_NAME.fullmatch(event.value):
        return f"the event name {event.value!r} is not in snake_case"
    return None


def messages_in_variables(node: ast.AST) -> Iterator[int]:
    """Lines that raise an error whose first argument is a string assigned in the statement before."""
    for block in ("body", "orelse", "finalbody"):
        statements = getattr(node, block, None)
        if not isinstance(statements, list):
            continue
        for before, after in itertools.pairwise(statements):
            if (
                isinstance(before, ast.Assign)
                and isinstance(before.value, ast.Constant | ast.JoinedStr)
                and isinstance(after, ast.Raise)
                and isinstance(after.exc, ast.Call)
                and _names(after.exc.args[:1]) == _names(before.targets) != []
            ):
                yield after.lineno


def _names(expressions: list[ast.expr]) -> list[str]:
    return [one.id for one in expressions if isinstance(one, ast.Name)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
