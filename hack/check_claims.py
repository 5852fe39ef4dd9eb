#!/usr/bin/env python3
"""Check what the documentation claims: `make verify` runs it.

- A line with a measured figure stands in the scope of a comment that names the command that prints it:
  `<!-- figures: make test-kv-sync-benchmark -->`. The scope ends at the next such comment or heading. For numbers that
  are settings or assumptions, the comment is `<!-- figures: settings -->`, and for figures that no command of this
  repository prints, `<!-- figures: elsewhere, SOURCE -->`.
- A comment `<!-- promise: FILE::TEST -->` names a test that exists. Each section of the README that describes behaviour
  has such a comment, or one about figures.
- Every command in these comments and in code blocks exists: targets and variables of the Makefile, scripts and their
  flags, and the commands and options of kvsync.
- A release that is named as a revision (`BASE=v1.2.3`) is a tag.

The script prints one line per finding and exits 1 if there are any.
"""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from check_links import START, find_pages

NOT_MEASURED_HERE = re.compile(r"settings|elsewhere, .{10,}")
GENERATED = Path("docs/reference")
"""The pages there are generated from models, whose limits are no figures."""
UNDESCRIBED = ("Guides",)
"""Sections of the README that promise nothing."""
COMMENT = re.compile(r"<!-- (figures|promise): (.*?) -->")
FIGURE = re.compile(
    r"\d[\d.,–-]*\s*(µs\b|M blocks\b|MiB\b|bytes of memory\b|requests/s\b"
    r"|(streaming )?(completions|blocks|events|requests) per (CPU )?second\b|ms\b(?! plus))",
)
FENCE = re.compile(r"^ {0,3}(```|~~~)")
TARGET = re.compile(r"^([a-z0-9][a-z0-9-]*)(?: [a-z0-9-]+)*:(?!=)", re.MULTILINE)
TAG = re.compile(r"\bBASE=(v\d\S*)")
PROGRAMS = {
    "kvsync": "kvsync.main:cli",
    "kvsync-router": "kvsync_router.proxy.main:main",
    "kvsync-operator": "kvsync_operator.main:main",
}


def main(arguments: list[str]) -> int:
    """Check the pages under the folder in `arguments`, or under the repository."""
    root = (Path(arguments[0]) if arguments else Path(__file__).parent.parent).resolve()
    problems = check(root)
    for problem in problems:
        print(problem)
    return 1 if problems else 0


def check(root: Path) -> list[str]:
    """Every problem of the README and of the pages in docs, one line each."""
    problems: list[str] = []
    for path in find_pages(root):
        if path == START or (path.parts[0] == "docs" and path.parent != GENERATED):
            text = (root / path).read_text(encoding="utf-8")
            problems += (f"{path}:{line}: {problem}" for line, problem in check_page(root, path, text))
    return problems


def check_page(root: Path, path: Path, text: str) -> Iterator[tuple[int, str]]:
    """(line, problem) of one page."""
    commands = Commands(root)
    if path == START:
        yield from _undescribed(text)
    source = ""
    for number, line, fenced in _lines(text):
        problems = [f"BASE={tag}: there is no such tag" for tag in TAG.findall(line) if tag not in commands.tags]
        if fenced:
            problems += commands.problems(line)
        else:
            if line.startswith("#"):
                source = ""
            for kind, value in COMMENT.findall(line):
                source = value if kind == "figures" else source
                problems += _comment_problems(root, commands, kind, value)
            if FIGURE.search(COMMENT.sub("", line)) and not source:
                problems.append("a figure without a comment that names the command that prints it")
        yield from ((number, problem) for problem in problems)


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """(number, line, whether it is in a code block), without the fences of code blocks."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if FENCE.match(line):
            fenced = not fenced
        else:
            yield number, line, fenced


def _undescribed(text: str) -> Iterator[tuple[int, str]]:
    """The sections that promise something and name neither a test nor a command."""
    headings = [(number, line) for number, line, fenced in _lines(text) if line.startswith("## ") and not fenced]
    commented = [number for number, line, fenced in _lines(text) if COMMENT.search(line) and not fenced]
    ends = [number for number, _ in headings[1:]] + [len(text.splitlines()) + 1]
    for (number, heading), end in zip(headings, ends, strict=True):
        if heading.removeprefix("## ") not in UNDESCRIBED and not any(number < at < end for at in commented):
            yield number, "this section has no comment that names a test or a command"


def _comment_problems(root: Path, commands: "Commands", kind: str, value: str) -> Iterator[str]:
    if kind == "promise":
        yield from find_test(root, value)
    elif not NOT_MEASURED_HERE.fullmatch(value):
        yield from commands.problems(value, known=True)


def find_test(root: Path, value: str) -> Iterator[str]:
    """What is wrong with a test that is named as FILE::TEST."""
    file, _, test = value.partition("::")
    path = root / file
    if not path.is_file():
        yield f"{value}: no such file"
    elif not re.search(rf"^ *(async )?def {re.escape(test)}\(", path.read_text(encoding="utf-8"), re.MULTILINE):
        yield f"{value}: no such test"


class Commands:
    """What commands exist in a repository."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._makefile = (root / "Makefile").read_text(encoding="utf-8")
        self._targets = set(TARGET.findall(self._makefile))
        listed = subprocess.run(["git", "tag"], cwd=root, capture_output=True, text=True, check=False)
        self.tags = set(listed.stdout.split())

    def problems(self, line: str, *, known: bool = False) -> Iterator[str]:
        """What is wrong with a line of shell. With `known`, a command that cannot be checked is a problem too."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            words = []
        while words and re.fullmatch(r"[A-Z_]+=.*|\$|nice|time|timeout", words[0]):
            words = words[2:] if words[0] == "timeout" else words[1:]
        program, arguments = (words[0], words[1:]) if words else ("", [])
        name = program.removeprefix(".venv/bin/")
        if "…" in line or "[" in line:
            return  # a synopsis
        if name == "make":
            yield from self._make(arguments)
        elif name in ("python", "python3", "bash") and arguments and arguments[0].endswith((".py", ".sh")):
            yield from self._script(arguments[0], arguments[1:])
        elif "/" in name and name.endswith((".py", ".sh")):
            yield from self._script(name, arguments)
        elif name == "pytest":
            yield from (f"{word}: no such file" for word in arguments if ".py" in word and not self._has(word))
        elif name in PROGRAMS:
            yield from _program(name, arguments)
        elif known:
            yield f"{line}: neither a make target nor a script nor a kvsync command"

    def _has(self, test: str) -> bool:
        return (self._root / test.partition("::")[0]).is_file()

    def _make(self, arguments: list[str]) -> Iterator[str]:
        for word in arguments:
            variable, equals, value = word.partition("=")
            if equals:
                if f"$({variable})" not in self._makefile and f"({variable})," not in self._makefile:
                    shell = "".join(path.read_text(encoding="utf-8") for path in self._root.glob("*/**/*.sh"))
                    if variable not in shell and variable not in self._makefile:
                        yield f"make {word}: nothing reads {variable}"
                if variable == "BENCH_ARGS":
                    yield from self._script("test/benchmark/bench_run.py", shlex.split(value))
            elif not word.startswith("-") and word not in self._targets:
                yield f"make {word}: no such target"

    def _script(self, name: str, arguments: list[str]) -> Iterator[str]:
        path = self._root / name
        if name.startswith(("~", "/", "$")):
            return
        if not path.is_file():
            yield f"{name}: no such script"
            return
        text = path.read_text(encoding="utf-8")
        for word in arguments:
            flag = word.partition("=")[0]
            if flag.startswith("--") and len(flag) > 2 and flag != "--help" and f'"{flag}"' not in text:
                yield f"{name} {flag}: no such flag"


def _program(name: str, arguments: list[str]) -> Iterator[str]:
    module, _, attribute = PROGRAMS[name].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    context = click.Context(command)
    if isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            yield f"{name} {arguments[0]}: no such command"
            return
        name, command, arguments = f"{name} {arguments[0]}", found, arguments[1:]
    known = {"--help", "-h", "--version"}
    for option in command.params:
        known |= {*option.opts, *option.secondary_opts}
    for word in arguments:
        flag = word.partition("=")[0]
        if word in ("|", ">", "&", "||", "&&", ";"):
            return
        if re.fullmatch(r"--?[a-z][a-z-]*", flag) and flag not in known:
            yield f"{name} {flag}: no such option"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
